"""Servers that deviate from OpenAI, one stub each: the rows of docs/endpoints.md."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Answer, Loopback, Seen, chat, status

from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Prompt, Reply
from cascade.models.openai import OpenAISettings
from cascade.models.openai.answer import FINISHES
from cascade.models.openai.model import OpenAI
from cascade.records import Request, Tool
from cascade.spec.kinds import ModelFacts
from cascade.spec.parts import Price

PAGE = Path(__file__).parents[2] / "docs" / "endpoints.md"
PRICE = Price(input=1.0, output=1.0)
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
Play = Callable[[Loopback], Awaitable[None]]
SERVERS: dict[str, Play] = {}


def server(name: str) -> Callable[[Play], Play]:
    def register(play: Play) -> Play:
        SERVERS[name] = play
        return play

    return register


@pytest.fixture
def stub() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


async def ask(url: str, *, live: bool = False, tools: bool = False, **settings: Any) -> Reply:
    known = {"kind": "openai", "model": "m", "key_env": None, "price": PRICE, "max_retries": 0, "timeout": 20}
    model = build_model("m", OpenAISettings(**{**known, "url": url, **settings}), Path())
    assert isinstance(model, OpenAI)
    request = Request(text="q", tools=(Tool(name="add"), Tool(name="now")) if tools else ())
    pieces: list[str] = []
    try:
        reply = await model.ask(Prompt(request), pieces.append if live else None)
    finally:
        await model.aclose()
    assert not live or "".join(pieces) == reply.text
    return reply


async def failure(url: str, **how: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(url, **how)
    return caught.value


def events(*documents: Any, frame: str = "data: {}\n\n", done: bool = True) -> Answer:
    chunks = [
        document if isinstance(document, bytes) else frame.format(json.dumps(document)).encode()
        for document in documents
    ]
    return Answer(
        headers={"Content-Type": "text/event-stream"},
        chunks=[*chunks, b"data: [DONE]\n\n"] if done else chunks,
    )


def delta(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}]}


END = {"choices": [], "usage": USAGE}


@server("OpenAI")
async def play_openai(stub: Loopback) -> None:
    def answer(seen: Seen) -> Answer:
        if "max_tokens" in seen.json:
            return status(400, "'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
        if seen.json.get("temperature", 1) != 1:
            said = {"message": "Unsupported value: 0 is not supported. Only 1 is.", "param": "temperature"}
            return Answer(400, chunks=[json.dumps({"error": said}).encode()])
        if "logprobs" in seen.json:
            return status(400, "logprobs are not supported with this model")
        return chat("yes")

    stub.answers = [answer]
    assert (await ask(stub.url, logprobs=False)).meta["left_out"] == ["temperature"]
    assert "logprobs" in str(await failure(stub.url))
    model = OpenAI("m", OpenAISettings(kind="openai", model="gpt-5.2"), ModelFacts())
    assert model._fields.cap == "max_completion_tokens"


@server("Azure OpenAI")
async def play_azure(stub: Loopback) -> None:
    """The stub is the proxy on the way to a host of Azure's, so that host, path and headers are real."""
    stub.answers = [
        events(
            {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
            delta("yes"),
            {"choices": [{"index": 0, "delta": None, "finish_reason": "stop", "content_filter_results": {}}]},
            END,
        ),
        chat("", finish_reason="content_filter"),
    ]
    url = "http://mine.openai.azure.com/openai/deployments/gpt?api-version=2024-10-21"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HTTP_PROXY", stub.root)
        environment.setenv("NO_PROXY", "")
        environment.setenv("AZURE_OPENAI_API_KEY", "azure-key")
        assert (await ask(url, live=True, key_env="AZURE_OPENAI_API_KEY")).text == "yes"
        filtered = await failure(url, key_env="AZURE_OPENAI_API_KEY")
    assert filtered.reason == "content_filter"
    seen = stub.requests[0]
    assert seen.path == url.replace("?", "/chat/completions?")
    assert seen.headers["api-key"] == "azure-key"
    assert "authorization" not in seen.headers
    assert "max_completion_tokens" in seen.json


@server("llama-server")
async def play_llama_server(stub: Loopback) -> None:
    stub.answers = [events(delta(reasoning_content="hm"), delta("yes"), delta(finish="stop"), END)]
    reply = await ask(stub.url, live=True)
    assert (reply.text, reply.meta["thinking"]) == ("yes", "hm")
    stub.answers = [events(delta("ye"), b'error: {"code": 500, "message": "context shift failed"}\n\n')]
    assert "context shift failed" in str(await failure(stub.url, live=True))
    stub.answers = [status(503, "Loading model", retry_after="0"), chat("yes")]
    assert (await ask(stub.url, max_retries=1)).text == "yes"


@server("Ollama")
async def play_ollama(stub: Loopback) -> None:
    calls = [
        {"id": f"c{i}", "function": {"name": name, "arguments": "{}"}}
        for i, name in enumerate(("add", "now"))
    ]
    stub.answers = [events(*(delta(tool_calls=[call]) for call in calls), delta(finish="stop"), END)]
    reply = await ask(stub.url, live=True, tools=True)
    assert [call.name for call in reply.tool_calls] == ["add", "now"]
    assert reply.tokens == ()


@server("LM Studio")
async def play_lm_studio(stub: Loopback) -> None:
    stub.answers = [Answer(chunks=[b'{"error": "Unexpected endpoint or method. (POST /chat/completions)"}'])]
    assert "Unexpected endpoint" in str(await failure(stub.root))
    stub.answers = [chat("<think>\nhm\n</think>\n\nyes")]
    reply = await ask(stub.url)
    assert (reply.text, reply.meta["thinking"]) == ("yes", "hm")


@server("vLLM")
async def play_vllm(stub: Loopback) -> None:
    body = {
        "object": "error",
        "message": "This model's maximum context length is 10",
        "type": "BadRequestError",
    }
    stub.answers = [Answer(400, chunks=[json.dumps(body).encode()])]
    assert "maximum context length" in str(await failure(stub.url))
    tokens = [("<think>", -0.1), ("hm", -3.0), ("</think>", -0.1), ("\n\n", -0.1), ("yes", -0.2)]
    stub.answers = [chat("yes", logprobs=tokens, reasoning="hm", reasoning_content="hm")]
    reply = await ask(stub.url)
    assert reply.meta["thinking"] == "hm"
    assert [token.logprob for token in reply.tokens if token.text.strip()] == [-0.2]


@server("SGLang")
async def play_sglang(stub: Loopback) -> None:
    nulls = {"reasoning_content": None, "tool_calls": None, "role": None}
    stub.answers = [events(delta("yes", **nulls), {**delta(finish="stop", **nulls), "usage": None}, END)]
    assert (await ask(stub.url, live=True)).tokens_out == 2
    stub.answers = [chat("ye", finish_reason="abort")]
    assert "abort" in str(await failure(stub.url))


@server("TGI")
async def play_tgi(stub: Loopback) -> None:
    frame = "data:{}\n\n"
    for said in ("eos_token", "stop_sequence"):
        stub.answers = [events(delta("yes"), delta(finish=said), END, frame=frame)]
        assert (await ask(stub.url, live=True)).meta["finish_reason"] == "stop"
    error = {"error": "Model is overloaded", "error_type": "overloaded"}
    stub.answers = [events(delta("ye"), error, frame=frame, done=False)]
    assert "Model is overloaded" in str(await failure(stub.url, live=True))


@server("Groq")
async def play_groq(stub: Loopback) -> None:
    def answer(seen: Seen) -> Answer:
        if "logprobs" in seen.json:
            return status(400, "`logprobs` is not supported with this model")
        return events(delta("yes"), {**delta(finish="stop"), "x_groq": {"id": "r", "usage": USAGE}})

    stub.answers = [answer]
    assert "`logprobs` is not supported" in str(await failure(stub.url))
    reply = await ask(stub.url, live=True, logprobs=False)
    assert (reply.tokens_in, reply.tokens_out, reply.billed) == (5, 2, None)


@server("Mistral")
async def play_mistral(stub: Loopback) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}

    def answer(seen: Seen) -> Answer:
        bad = [name for name in ("seed", "stream_options") if name in seen.json]
        detail = [{"loc": ["body", name], "msg": "Extra inputs are not permitted"} for name in bad]
        if bad:
            return Answer(
                422, chunks=[json.dumps({"object": "error", "message": {"detail": detail}}).encode()]
            )
        parts = [thinking, {"type": "text", "text": "yes"}]
        return events({"choices": [{"delta": {"content": parts}, "finish_reason": "model_length"}]}, END)

    stub.answers = [answer]
    reply = await ask(stub.url, live=True)
    assert (reply.text, reply.meta["thinking"], reply.meta["finish_reason"]) == ("yes", "hm", "length")
    assert reply.meta["left_out"] == ["seed", "stream_options"]


@server("OpenRouter")
async def play_openrouter(stub: Loopback) -> None:
    comment = b": OPENROUTER PROCESSING\n\n"
    stub.answers = [events(comment, delta("yes"), comment, delta(finish="stop"), END)]
    assert (await ask(stub.url, live=True)).text == "yes"
    error = {
        "code": 502,
        "message": "Provider returned error",
        "metadata": {"raw": '{"detail": "no capacity"}'},
    }
    broken = {"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": error}]}
    stub.answers = [events(delta("ye"), broken)]
    said = str(await failure(stub.url, live=True))
    assert "Provider returned error" in said
    assert "no capacity" in said


@server("xAI")
async def play_xai(stub: Loopback) -> None:
    totals, deltas = (200, 399, 399), (delta("y"), delta("es"), delta(finish="stop"))
    chunks = [
        {**said, "usage": {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": total}}
        for said, total in zip(deltas, totals, strict=True)
    ]
    stub.answers = [events(*chunks)]
    reply = await ask(stub.url, live=True)
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("yes", 12, 387)


@pytest.mark.parametrize("name", sorted(SERVERS))
async def test_a_server_that_deviates_is_met_as_the_page_says(stub: Loopback, name: str) -> None:
    await SERVERS[name](stub)


def rows(heading: str) -> list[list[str]]:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_exactly_the_servers_that_are_played() -> None:
    table = rows("Servers")
    assert [row[0] for row in table] == list(SERVERS)
    assert all(len(row) == 3 and all(row) for row in table)


def test_the_page_has_exactly_the_finish_reasons_that_are_read() -> None:
    named = {"stop": "stop", "length": "length", "tool calls": "tool_calls"}
    written = {
        said: named[read] for cell, read in rows("Finish reasons") for said in re.findall(r"`(\w+)`", cell)
    }
    assert written == FINISHES


@pytest.mark.parametrize(
    "body",
    [
        '["{said}"]', '"{said}"', "<html><head><title>502</title></head><body>{said}</body></html>", "{said}",
        '{{"detail": "{said}"}}', '{{"message": {{"detail": [{{"msg": "{said}", "loc": ["body"]}}]}}}}',
        '{{"error": {{"message": "{said}"}}}}', '{{"errors": [{{"title": "{said}"}}]}}',
        '{{"weird": ["{said}"]}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", [400, 422, 500, 200])
async def test_the_servers_words_are_kept_whatever_the_body_and_the_key_is_not(
    stub: Loopback, monkeypatch: pytest.MonkeyPatch, body: str, code: int
) -> None:
    key = 'sk-"quoted"/0123456789'
    monkeypatch.setenv("OPENAI_API_KEY", key)
    said = body.format(said=f"the quota is gone, {json.dumps(key)[1:-1]}")
    stub.answers = [Answer(code, chunks=[said.encode()])]
    caught = await failure(stub.url.replace("//", "//me:p%40ss-word@"), key_env="OPENAI_API_KEY")
    assert "the quota is gone" in str(caught)
    assert "0123456789" not in str(caught)
    assert len(str(caught)) < 1000
    assert "\n" not in str(caught)


async def test_a_query_of_the_url_goes_along_and_its_secrets_stay_out_of_errors(stub: Loopback) -> None:
    url = f"{stub.url}?api-version=2024&code=s3cr%2Ft-value"
    stub.answers = [status(500, "no such path: /v1/chat/completions?code=s3cr%2Ft-value or s3cr/t-value")]
    said = str(await failure(url))
    assert "s3cr" not in said
    assert "no such path" in said
    assert stub.requests[0].path == "/v1/chat/completions?api-version=2024&code=s3cr%2Ft-value"
