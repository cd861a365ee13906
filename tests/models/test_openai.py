"""The OpenAI model against a real server on loopback, well-behaved and otherwise."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Answer, Gate, Loopback, Seen, chat, status, stream

from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Prompt, Reply, charge
from cascade.models.openai import OpenAISettings
from cascade.models.openai.model import OpenAI
from cascade.records import Message, Request, Tool, ToolCall
from cascade.spec.kinds import ModelFacts
from cascade.spec.parts import Price

FREE = ModelFacts()  # a model without labels
KEY = "sk-test-0123456789"
Make = Callable[..., OpenAI]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture
def make(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Build a model that asks `server`; settings override."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def build(**settings: Any) -> OpenAI:
        defaults = {
            "kind": "openai",
            "model": "gpt-played",
            "url": server.url,
            "max_retries": 0,
            "timeout": 5,
        }
        model = build_model("strong", OpenAISettings(**{**defaults, **settings}), Path())
        assert isinstance(model, OpenAI)
        return model

    return build


async def failure(model: OpenAI, text: str = "hello", **how: Any) -> str:
    with pytest.raises(ModelError) as caught:
        await model.ask(Prompt(text), **how)
    await model.aclose()
    assert KEY not in str(caught.value)
    return str(caught.value)


async def test_an_answer_comes_with_usage_log_probabilities_and_meta(server: Loopback, make: Make) -> None:
    server.answers = [chat("Paris.", logprobs=[("Paris", -0.25), (".", -0.5)], usage=(12, 2))]
    model = make(system="Be short.", prompt="Q: {text}", temperature=0.5, seed=7, max_tokens=9)
    reply = await model.ask(Prompt("Capital of {labels} France?", sample=2))
    await model.aclose()
    assert (reply.text, reply.tokens_in, reply.tokens_out, reply.billed) == ("Paris.", 12, 2, None)
    assert [(token.text, token.logprob) for token in reply.tokens] == [("Paris", -0.25), (".", -0.5)]
    assert reply.tokens[0].margin == pytest.approx(1.0)
    assert reply.tokens[0].entropy is None  # two of many tokens do not make a distribution
    assert reply.meta == {"finish_reason": "stop", "model": "played"}
    seen = server.requests[0]
    assert (seen.path, seen.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert seen.json == {
        "model": "gpt-played",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Q: Capital of {labels} France?"},
        ],
        "stream": False,
        "temperature": 0.5,
        "seed": 9,
        "max_tokens": 9,
        "logprobs": True,
        "top_logprobs": 5,
    }


async def test_top_p_and_stop_strings_are_sent_where_they_are_set(server: Loopback, make: Make) -> None:
    server.answers = [chat("ok"), chat("ok")]
    for settings in ({}, {"top_p": 0.5, "stop": ["\n\n"]}):
        model = make(**settings)
        await model.ask(Prompt("hello"))
        await model.aclose()
    plain, set_ = (request.json for request in server.requests)
    assert "top_p" not in plain
    assert "stop" not in plain
    assert (set_["top_p"], set_["stop"]) == (0.5, ["\n\n"])


async def test_log_probabilities_are_not_asked_for_where_they_are_switched_off(
    server: Loopback, make: Make
) -> None:
    server.answers = [chat("ok")]
    model = make(logprobs=False)
    reply = await model.ask(Prompt("hello"))
    await model.aclose()
    assert reply.tokens == ()
    assert not {"logprobs", "top_logprobs"} & server.requests[0].json.keys()


async def test_entropy_is_there_when_the_top_list_is_the_whole_distribution(
    server: Loopback, make: Make
) -> None:
    half = math.log(0.5)
    top = [{"token": "a", "logprob": half}, {"token": "b", "logprob": half}]
    content = [{"token": "a", "logprob": half, "top_logprobs": top}]
    answer = {"message": {"content": "a"}, "finish_reason": "stop", "logprobs": {"content": content}}
    server.answers = [Answer(chunks=[json.dumps({"choices": [answer]}).encode()])]
    model = make()
    token = (await model.ask(Prompt("hello"))).tokens[0]
    await model.aclose()
    assert token.entropy == pytest.approx(math.log(2))
    assert token.margin == 0.0


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{"token": "a", "logprob": "high"}]},
        {"content": [{"token": "a", "logprob": 3.0}]},
        {"content": [{"token": "a", "logprob": math.nan}]},
        {"content": [{"logprob": -1.0}]},
        {"tokens": ["a"], "content": 5},
        [-1.0],
    ],
)
async def test_malformed_log_probabilities_are_missing_evidence_not_a_failure(
    server: Loopback, make: Make, logprobs: Any
) -> None:
    choice = {"message": {"content": "a"}, "finish_reason": "stop", "logprobs": logprobs}
    server.answers = [Answer(chunks=[json.dumps({"choices": [choice]}).encode()])]
    model = make()
    reply = await model.ask(Prompt("hello"))
    await model.aclose()
    assert reply.text == "a"
    assert reply.tokens == ()
    assert reply.meta["logprobs"] == "malformed"


@pytest.mark.parametrize(("usage", "flag"), [(None, "missing"), ((0, 0), "missing"), ((-5, 2), "malformed")])
async def test_without_usage_no_tokens_are_counted_and_the_worst_case_is_billed(
    server: Loopback, make: Make, usage: tuple[int, int] | None, flag: str
) -> None:
    server.answers = [chat("ok", usage=usage)]
    price = Price(input=1.0, output=2.0)
    model = make(max_tokens=10, price=price)
    reply = await model.ask(Prompt("hello"))
    await model.aclose()
    assert (reply.tokens_in, reply.tokens_out, reply.meta["usage"]) == (0, 0, flag)
    assert reply.billed == model.worst_case(Prompt("hello"))
    assert charge(price, reply) == pytest.approx((model.worst_case(Prompt("hello"))[0] + 20) / 1e6)


async def test_an_answer_cut_at_max_tokens_says_so(server: Loopback, make: Make) -> None:
    server.answers = [chat("long and", finish_reason="length"), chat("too long", usage=(5, 700))]
    model = make(max_tokens=3)
    assert (await model.ask(Prompt("hello"))).meta["finish_reason"] == "length"
    assert (await model.ask(Prompt("hello"))).meta["over_max_tokens"] is True
    await model.aclose()


@pytest.mark.parametrize(
    "said",
    ["card_arrival", " Card_Arrival\n", "**card_arrival**", '"card_arrival".', "```\ncard_arrival\n```"],
)
async def test_a_label_is_recognised_through_quotes_markdown_and_case(
    server: Loopback, make: Make, said: str
) -> None:
    server.answers = [chat(said)]
    model = make(labels=["card_arrival", "card_lost"], prompt="One of:\n{labels}\n\n{text}")
    pieces: list[str] = []
    reply = await model.ask(Prompt("Where is my {labels} card?"), pieces.append)
    await model.aclose()
    assert (reply.text, pieces) == ("card_arrival", ["card_arrival"])
    user = server.requests[0].json["messages"][0]["content"]
    assert user == "One of:\ncard_arrival\ncard_lost\n\nWhere is my {labels} card?"
    assert server.requests[0].json["stream"] is False  # an unchecked label must not leak


async def test_an_answer_outside_the_labels_fails_and_is_billed(server: Loopback, make: Make) -> None:
    server.answers = [chat("foo", usage=(40, 2))]
    model = make(labels=["a", "b", "c"])
    with pytest.raises(ModelError, match="answered 'foo', which is not one of its 3 labels") as caught:
        await model.ask(Prompt("hello"))
    await model.aclose()
    assert caught.value.billed == (40, 2)
    assert charge(Price(input=1.0, output=1.0), caught.value) == pytest.approx(42e-6)


async def test_streaming_hands_over_the_pieces_and_keeps_usage_and_log_probabilities(
    server: Loopback, make: Make
) -> None:
    server.answers = [stream(["Hel", "lo ", "wörld"], usage=(9, 3))]
    model = make()
    pieces: list[str] = []
    reply = await model.ask(Prompt("hello"), pieces.append)
    await model.aclose()
    assert pieces == ["Hel", "lo ", "wörld"]
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("Hello wörld", 9, 3)
    assert [token.logprob for token in reply.tokens] == [-0.5, -0.5, -0.5]
    assert server.requests[0].json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "answer",
    [
        stream(["Hel"], finish_reason=None),
        stream(["Hel"], finish_reason=None, cut=True),
        Answer(headers={"Content-Type": "text/event-stream"}, chunks=[]),
    ],
)
async def test_a_stream_that_does_not_finish_is_a_failure(
    server: Loopback, make: Make, answer: Answer
) -> None:
    server.answers = [answer]
    assert "broke" in await failure(make(), on_text=[].append)


@pytest.mark.parametrize(
    "event",
    [
        b"data: {oops\n\n",
        b"data: \xff\xfe\n\n",
        b"data: 5\n\n",
        b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'data: {"error": {"message": "model crashed"}}\n\n',
    ],
)
async def test_a_broken_stream_event_is_a_failure(server: Loopback, make: Make, event: bytes) -> None:
    server.answers = [Answer(headers={"Content-Type": "text/event-stream"}, chunks=[event])]
    assert "strong" in await failure(make(), on_text=[].append)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(headers={"Content-Type": "text/plain"}, chunks=[b"Welcome!"]), "sent no chat completion"),
        (Answer(headers={"Content-Type": "text/html"}, chunks=[b"<html>"]), "must be the base"),
        (Answer(chunks=[b"{"]), "Invalid JSON"),
        (Answer(chunks=[b"[" * 100_000]), "sent no chat completion"),
        (Answer(chunks=[b'{"choices": "none"}']), "choices"),
        (Answer(chunks=[b'{"choices": []}']), "no finish_reason"),
        (Answer(chunks=[b'{"choices":[{"message":{"content":"\\ud800"}}]}']), "sent no chat completion"),
        (chat("", finish_reason="length"), "raise max_tokens"),
        (chat(None), "empty answer"),
        (chat("x", finish_reason=None), "no finish_reason"),
        (chat("x", finish_reason="content_filter"), "content_filter"),
        (chat(None, refusal="I cannot help with that"), "refused to answer: 'I cannot help"),
        (
            status(400, "the prompt is not allowed"),
            "answered 400 (the prompt is not allowed); change",
        ),
        (status(401, f"Incorrect API key provided: {KEY}"), "check the key in OPENAI_API_KEY"),
        (status(403, "no"), "may do"),
        (status(404, "model not found"), "check model ('gpt-played') and URL"),
        (status(413), "too long"),
        (status(429, "slow down"), "quota"),
        (status(500, "boom"), "answered 500 (boom); try again later"),
        (status(503), "try again later"),
        (status(307, location="http://198.51.100.7/v1"), "not followed"),
        (Answer(418, {"Content-Type": "text/plain"}, [b"\x00\xff teapot"]), "answered 418"),
        (Answer(headers={"Content-Encoding": "gzip"}, chunks=[b"no gzip"]), "broke the call off"),
        (Answer(headers={"Content-Length": "100"}, chunks=[b"{}"], cut=True), "broke the call off"),
        (Answer(chunks=[b'{"choices"'], cut=True), "broke the call off"),
    ],
)
async def test_whatever_goes_wrong_is_said_in_plain_words(
    server: Loopback, make: Make, answer: Answer, words: str
) -> None:
    server.answers = [answer]
    said = await failure(make())
    assert said.startswith(f"model 'strong' at {server.url} ")
    assert words in said
    assert len(server.requests) == 1


async def test_only_the_client_retries_and_only_as_often_as_configured(server: Loopback, make: Make) -> None:
    server.answers = [status(500, retry_after="0"), status(429, retry_after="0"), chat("third")]
    model = make(max_retries=2)
    assert (await model.ask(Prompt("hello"))).text == "third"
    await model.aclose()
    assert len(server.requests) == 3
    server.answers = [status(400, "bad")]
    assert "400" in await failure(make(max_retries=2))
    assert len(server.requests) == 4


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_slow_server_is_cut_off_in_time(server: Loopback, make: Make, streamed: bool) -> None:
    drip = Answer(chunks=[b" "] * 1000, pause=0.05)  # never a long silence, never an end
    server.answers = [stream(["x"] * 1000, pause=0.05) if streamed else drip]
    model = make(timeout=0.3)
    start = time.perf_counter()
    said = await failure(model, on_text=[].append if streamed else None)
    assert "no complete answer within 0.3 s" in said
    assert time.perf_counter() - start < 1.5


async def test_the_time_left_to_the_run_cuts_a_call_off_too(server: Loopback, make: Make) -> None:
    server.answers = [chat("late", pause=5)]
    model = make(timeout=60)
    with pytest.raises(ModelError) as caught:
        await model.ask(Prompt("hello", timeout=0.2))
    await model.aclose()
    assert caught.value.billed == model.worst_case(Prompt("hello"))  # the server may have generated it all


async def test_cancellation_passes_through(server: Loopback, make: Make) -> None:
    gate = Gate(server, chat("late"))
    model = make()
    task = asyncio.create_task(model.ask(Prompt("hello")))
    assert await asyncio.to_thread(gate.asked.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open.set()
    await model.aclose()


async def test_an_error_of_the_listener_is_not_the_models(server: Loopback, make: Make) -> None:
    server.answers = [stream(["a", "b"])]
    model = make()

    def listener(piece: str) -> None:
        raise TimeoutError("the listener's own")

    with pytest.raises(TimeoutError, match="listener"):
        await model.ask(Prompt("hello"), listener)
    await model.aclose()


async def test_a_server_that_is_not_there_is_named_and_costs_nothing(make: Make) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    model = make(url=f"http://user:secret@127.0.0.1:{port}/v1")
    with pytest.raises(ModelError) as caught:
        await model.ask(Prompt("hello"))
    await model.aclose()
    assert str(caught.value).startswith(f"model 'strong' at http://127.0.0.1:{port}/v1 cannot be reached")
    assert "secret" not in str(caught.value)
    assert caught.value.billed == (0, 0)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70 + ".test", "ex ample", "xn--\u20ac", "[::1"])
async def test_a_host_that_does_not_exist_is_a_failure(make: Make, host: str) -> None:
    assert "strong" in await failure(make(url=f"http://{host}/v1", timeout=3))


async def test_a_server_that_does_not_speak_http_is_a_failure(make: Make) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        assert "broke the call off" in await failure(make(url=f"http://127.0.0.1:{port}"))


def test_two_event_loops_in_sequence_and_two_at_once_work(server: Loopback, make: Make) -> None:
    server.answers = [chat("ok")]
    model = make()
    for _ in range(2):  # without aclose: the client closes with its loop
        assert asyncio.run(model.ask(Prompt("hello"))).text == "ok"
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(asyncio.run(model.ask(Prompt("hello")))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == 2


async def test_one_client_serves_many_calls_at_once(server: Loopback, make: Make) -> None:
    def echo(seen: Seen) -> Answer:
        return chat(seen.json["messages"][0]["content"], pause=0.02)

    server.answers = [echo]
    model = make()
    replies = await asyncio.gather(*(model.ask(Prompt(f"text {i}")) for i in range(30)))
    await model.aclose()
    await model.aclose()  # twice is fine
    assert [reply.text for reply in replies] == [f"text {i}" for i in range(30)]


def test_a_missing_key_is_a_reason_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OpenAI("strong", OpenAISettings(kind="openai", model="gpt-4o"), FREE)
    assert model.unavailable() == (
        "model 'strong' needs OPENAI_API_KEY; "
        "set it, or OPENAI_BASE_URL and key_env: null for a server without keys"
    )
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert model.unavailable() is None
    monkeypatch.setenv("OPENAI_API_KEY", "sk-two\nlines")
    assert "OPENAI_API_KEY holds spaces" in (model.unavailable() or "")


@pytest.mark.parametrize("url", ["localhost:8080/v1", "ftp://127.0.0.1", "http://", "http://127.0.0.1:port"])
async def test_a_wrong_url_is_a_reason(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    model = OpenAI("strong", OpenAISettings(kind="openai", model="m", key_env=None), FREE)
    assert "OPENAI_BASE_URL is no http(s) URL" in (model.unavailable() or "")
    with pytest.raises(ModelError, match="no http"):
        await model.ask(Prompt("hello"))


def test_a_local_model_never_falls_back_to_the_remote_default() -> None:
    model = OpenAI("near", OpenAISettings(kind="openai", model="m", local=True, key_env=None), FREE)
    assert "no URL on this machine" in (model.unavailable() or "")


async def test_a_local_model_is_not_asked_through_a_proxy(
    server: Loopback, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [chat("direct")]
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    model = make(local=True)
    assert (await model.ask(Prompt("hello"))).text == "direct"
    await model.aclose()


async def test_the_environment_names_the_server_and_null_means_no_key(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [chat("ok")]
    monkeypatch.setenv("MY_SERVER", server.url + "/")
    model = OpenAI(
        "m", OpenAISettings(kind="openai", model="m", url_env="MY_SERVER", key_env=None), ModelFacts()
    )
    assert (await model.ask(Prompt("hello"))).text == "ok"
    await model.aclose()
    assert server.requests[0].headers["authorization"] == "Bearer none"


def test_the_price_comes_from_the_file_then_from_the_table_and_local_is_free() -> None:
    own = Price(input=9.0, output=9.0)
    settings: dict[str, Any] = {"kind": "openai", "model": "gpt-4o"}
    assert OpenAI("m", OpenAISettings(**settings, price=own), FREE).price == own
    assert OpenAI("m", OpenAISettings(**settings), FREE).price == Price(input=2.5, output=10.0, cached=1.25)
    assert OpenAI("m", OpenAISettings(**settings, local=True), FREE).price == Price(input=0.0, output=0.0)
    assert OpenAI("m", OpenAISettings(kind="openai", model="my-own"), FREE).price is None


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://127.0.0.1:8080/v1", "max_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
    ],
)
def test_the_cap_has_the_name_that_the_server_knows(make: Make, url: str, field: str) -> None:
    model = make(url=url)
    body = model._body(Prompt("hello"), None, model._fields)
    assert body[field] == 512
    assert len({"max_tokens", "max_completion_tokens"} & body.keys()) == 1


def test_the_worst_case_counts_bytes_system_message_and_template(make: Make) -> None:
    model = make(prompt="Q: {text}", system="héé", max_tokens=7)
    tokens_in, tokens_out = model.worst_case(Prompt("ab"))
    assert tokens_in >= len(b"Q: ab") + len("héé".encode())
    assert tokens_out == 7
    assert model.worst_case(Prompt("\ufdfa" * 100))[0] > 3000  # one sign of 3 bytes that NFKC turns into 33


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://user:secret@127.0.0.1:1"),
        ("HTTP_PROXY", "nonsense://secret"),
        ("SSL_CERT_FILE", "/nowhere/secret.pem"),
    ],
)
async def test_a_proxy_or_certificate_that_does_not_work_is_a_failure(
    make: Make, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    said = await failure(make())
    assert name in said
    assert "secret" not in said


ADD = Tool(name="add", description="adds", parameters={"properties": {"a": {"type": "integer"}}})
TALK = (
    Message(role="system", content="You add."),
    Message(role="user", content="first"),
    Message(role="assistant", tool_calls=(ToolCall(id="c1", name="add", arguments='{"a": 1}'),)),
    Message(role="tool", content="2", tool_call_id="c1"),
    Message(role="assistant", content="It is 2."),
    Message(role="user", content="and {labels}?"),
)


def function(name: str | None, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


async def test_a_conversation_with_tools_and_a_schema_is_sent_whole(server: Loopback, make: Make) -> None:
    server.answers = [chat("3")]
    model = make(system="Be short.", prompt="Q: {text}")
    schema = {"title": "Sum", "type": "integer"}
    await model.ask(
        Prompt(Request(text="and?", messages=TALK, tools=(ADD,), tool_choice="add", output_schema=schema))
    )
    unnamed = {"title": "no name", "type": "integer"}
    await model.ask(Prompt(Request(text="and?", tools=(ADD,), output_schema=unnamed)))
    await model.aclose()
    sent = server.requests[0].json
    name = sent["messages"][2]["tool_calls"][0]["id"]
    assert re.fullmatch("[A-Za-z0-9]{9}", name)  # the only ids that every server takes
    call = {"id": name, "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    assert sent["messages"] == [
        {"role": "system", "content": "Be short.\n\nYou add."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": name},
        {"role": "assistant", "content": "It is 2."},
        {"role": "user", "content": "Q: and {labels}?"},
    ]
    parameters = {"properties": {"a": {"type": "integer"}}, "type": "object"}
    described = {"name": "add", "description": "adds", "parameters": parameters}
    assert sent["tools"] == [{"type": "function", "function": described}]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Sum", "schema": schema},
    }
    assert server.requests[1].json["tool_choice"] == "auto"
    assert server.requests[1].json["response_format"]["json_schema"]["name"] == "answer"


async def test_a_model_with_labels_reads_the_text_alone(server: Loopback, make: Make) -> None:
    server.answers = [chat("yes")]
    model = make(labels=["yes", "no"])
    await model.ask(Prompt(Request(text="and?", messages=TALK, tools=(ADD,))))
    await model.aclose()
    assert server.requests[0].json["messages"] == [{"role": "user", "content": "and?"}]
    assert "tools" not in server.requests[0].json


async def test_tool_calls_are_read_as_they_are_written(server: Loopback, make: Make) -> None:
    calls = [
        function("add", '{"a": 1', id="c1"), function("add", {"a": 2}, id="c1"), function(None, None)
    ]  # fmt: skip
    server.answers = [chat(None, tool_calls=calls, finish_reason="tool_calls")]
    model = make()
    reply = await model.ask(Prompt(Request(text="go", tools=(ADD,))))
    await model.aclose()
    assert reply.text == ""
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [
        ("add", '{"a": 1'),
        ("add", '{"a": 2}'),
        ("", ""),
    ]
    assert reply.tool_calls[0].id == "c1"
    assert len({call.id for call in reply.tool_calls}) == 3


def streamed(*deltas: Any, end: str | None = "tool_calls") -> Answer:
    events = [{"choices": [{"delta": {"tool_calls": [delta]}}]} for delta in deltas]
    events += [{"choices": [{"delta": {}, "finish_reason": end}]}] if end else []
    chunks = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return Answer(headers={"Content-Type": "text/event-stream"}, chunks=[*chunks, b"data: [DONE]\n\n"])


async def test_streamed_tool_calls_are_put_together(server: Loopback, make: Make) -> None:
    server.answers = [
        streamed(
            function("add", "", index=0, id="c1"), function(None, '{"a":', index=0),
            function("now", "{}", index=1, id="c2"), function(None, " 1}", index=0),
        )
    ]  # fmt: skip
    model = make()
    said: list[str] = []
    reply = await model.ask(Prompt(Request(text="go", tools=(ADD,))), said.append)
    await model.aclose()
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
        ("c1", "add", '{"a": 1}'),
        ("c2", "now", "{}"),
    ]
    assert said == []


async def test_a_stream_cut_within_a_tool_call_is_a_failed_call(server: Loopback, make: Make) -> None:
    server.answers = [streamed(function("add", '{"a":', index=0, id="c1"), end=None)]
    model = make()
    assert "broke its answer off" in await failure(model, on_text=print)


@pytest.mark.parametrize(
    "calls", ["add", [7], [{"function": "add"}], [{"function": {"name": 7}}], [{"index": "0"}]]
)
async def test_malformed_tool_calls_are_a_failed_call(server: Loopback, make: Make, calls: Any) -> None:
    server.answers = [chat(None, tool_calls=calls)]
    assert "sent no chat completion" in await failure(make())


def test_the_worst_case_counts_the_conversation_tools_and_schema(make: Make) -> None:
    model = make()
    alone = model.worst_case(Prompt("and?"))[0]
    talk = model.worst_case(Prompt(Request(text="and?", messages=TALK)))[0]
    assert talk - alone > sum(len(message.content) for message in TALK)
    large = Tool(name="add", description="x" * 1000)
    assert model.worst_case(Prompt(Request(text="and?", tools=(large,))))[0] - alone > 1000
    typed = Request(text="and?", output_schema={"const": "x" * 1000})
    assert model.worst_case(Prompt(typed))[0] - alone > 1000
    assert make(labels=["a", "b"]).worst_case(Prompt(Request(text="and?", messages=TALK)))[0] < talk
