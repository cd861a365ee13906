"""Fields that mean nothing here change nothing; fields with a meaning that no request gets are refused."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel
from scripting import scripted, write
from serving import serving

from cascade import Cascade
from cascade.openai_fields import IGNORED_SETTINGS, REFUSED, clean_message
from cascade.records import Request
from cascade.serve.openai.reading import UnreadableError, read_form
from cascade.serve.server import create_server
from cascade.trace import TraceStore

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "enum": ["", "Bonn"]}}, "required": []}
FUNCTION = {"name": "weather", "description": "Weather of a city", "parameters": SCHEMA}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
CHAT: dict[str, Any] = {
    "model": "test",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How is "}, {"type": "text", "text": "Bonn?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}], "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "Sunny."},
        {"role": "user", "content": "And now?"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}},
    "cascade": {"local_only": True},
}
RESPONSES: dict[str, Any] = {
    "model": "test",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "How is Bonn?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"role": "user", "content": "And now?"},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}},
}
EMPTY: tuple[Any, ...] = (None, "", [], {})
WORDS = ("x", 0, 1.5, True, ["a"], {"a": 1}, "", [], {}, None)
WITH_EFFECT = ("include", "stream_options", "top_logprobs")  # in one of the two APIs
# What an SDK, or another provider, writes into an answer that comes back.
OF_ANSWERS = ("parsed", "parsed_arguments", "reasoning_content", "reasoning", "reasoning_details", "index",
              "annotations", "provider_specific_fields", "cache_control", "status", "id", "logprobs",
              "thinking_blocks", "never_heard_of")  # fmt: skip
OF_ALL = ("cache_control", "annotations", "prompt_cache_breakpoint", "metadata")


def request_of(body: dict[str, Any]) -> Request:
    """The request that a body asks."""
    return read_form("responses" if "input" in body else "chat", json.dumps(body).encode()).request


def noisy(draw: random.Random, body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with fields added, in random places, that mean nothing."""
    body = copy.deepcopy(body)
    for name in draw.sample(sorted(IGNORED_SETTINGS), 6):
        body.setdefault(name, draw.choice(EMPTY if name in WITH_EFFECT else WORDS))
    for name in draw.sample([*sorted(REFUSED), "stop", "foo", "n"], 5):
        body.setdefault(name, draw.choice(EMPTY if name != "web_search_options" else (None,)))
    body |= draw.choice(
        ({}, {"modalities": ["text"]}, {"n": 1}, {"background": False}, {"function_call": "auto"})
    )
    for part in _parts(body):
        answers = (
            part.get("role") == "assistant" or part.get("type") == "function_call" or "arguments" in part
        )
        for name in draw.sample(OF_ANSWERS if answers else OF_ALL, 3):
            part.setdefault(name, draw.choice(WORDS))
        part.setdefault(draw.choice(("audio", "function_call", "whatever")), draw.choice(EMPTY))
    turns = body["messages"] if "messages" in body else body["input"]
    if "input" in body:
        turns.insert(draw.randrange(1, 5), draw.choice((
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "additional_tools", "role": "developer", "tools": []},
        )))  # fmt: skip
    for turn in turns:
        if turn.get("role") == "assistant" and isinstance(turn.get("content"), list):
            turn["content"].insert(0, {"type": "thinking", "thinking": "hm", "signature": "s"})
    return body


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages or items, their pieces of content, their calls, and the tools."""
    for turn in body.get("messages") or body["input"]:
        yield turn
        yield from turn["content"] if isinstance(turn.get("content"), list) else ()
        for call in turn.get("tool_calls", ()):
            yield from (call, call["function"])
    yield from body["tools"]


@pytest.mark.parametrize("body", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_what_means_nothing_changes_nothing(body: dict[str, Any]) -> None:
    meant = request_of(body)
    assert [message.role for message in meant.messages][:4] == ["system", "user", "assistant", "tool"]
    assert meant.messages[2].tool_calls
    draw = random.Random(12)
    for _ in range(300):
        sent = noisy(draw, body)
        assert request_of(sent) == meant, sent


@pytest.mark.parametrize("body", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_what_has_a_meaning_and_no_effect_is_refused_by_name(body: dict[str, Any]) -> None:
    draw = random.Random(13)
    meant = {
        "modalities": ["text", "audio"], "background": True, "web_search_options": {},
        "functions": [FUNCTION], "logit_bias": {"50256": -100}, "function_call": {"name": "f"},
        "audio": {"voice": "alloy"},
    }  # fmt: skip
    for name in [*REFUSED, "nn", "local_only"]:
        with pytest.raises(UnreadableError) as refused:
            request_of(noisy(draw, body) | {name: meant.get(name, {"id": "x"})})
        assert refused.value.param == name


@pytest.mark.parametrize(
    ("place", "member"),
    [
        ((0,), {"audio": {"id": "a"}}),
        ((1,), {"whatever": 1}),
        ((1, "content", 0), {"whatever": 1}),
        ((2,), {"audio": {"id": "a"}}),
        ((2,), {"function_call": {"name": "f", "arguments": "{}"}}),
        ((2,), {"images": [{"type": "image_url"}]}),
        ((3,), {"whatever": 1}),
    ],
)
def test_members_with_a_meaning_are_refused(place: tuple[Any, ...], member: dict[str, Any]) -> None:
    body = copy.deepcopy(CHAT)
    found: Any = body["messages"]
    for key in place:
        found = found[key]
    found |= member
    with pytest.raises(UnreadableError) as refused:
        request_of(body)
    assert str(refused.value.param).rpartition(".")[2] in member


def test_items_that_need_what_is_stored_are_refused() -> None:
    for item in (
        {"type": "item_reference", "id": "x"},
        {"type": "additional_tools", "tools": [{"type": "x"}]},
    ):
        with pytest.raises(UnreadableError, match=r"input\.0\.(type|tools)"):
            request_of(RESPONSES | {"input": [item, *RESPONSES["input"]]})


def test_a_message_is_cleaned_in_place_of_its_sender_only() -> None:
    said = {
        "role": "assistant",
        "content": "b",
        "reasoning_content": "c",
        "tool_calls": [CALL | {"index": 0}],
    }
    assert clean_message(said) == {"role": "assistant", "content": "b", "tool_calls": [CALL]}
    assert "reasoning_content" in said
    asked = {"role": "user", "content": "b", "reasoning_content": "c", "name": "Ada"}
    assert clean_message(asked) == {"role": "user", "content": "b", "reasoning_content": "c"}


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    models = {"m": scripted("one two\nthree | four", confidence=0.9)}
    path, database = write(tmp_path, models, [{"name": "only", "ask": ["m"]}]), str(tmp_path / "t.db")
    with Cascade.load(path, trace_db=database) as cascade, TraceStore(database, create=False) as store:
        yield TestClient(create_server({"test": cascade}, store), base_url="http://127.0.0.1:8000")


ASKED = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("\n", "one two"), (["|", "three"], "one two\n"), ("one", ""), (["", "two"], "one "),
        (["absent"], "one two\nthree | four"), ("", "one two\nthree | four"), ([], "one two\nthree | four"),
    ],
)  # fmt: skip
def test_an_answer_ends_before_its_stop(http: TestClient, stop: Any, text: str) -> None:
    whole = http.post("/v1/chat/completions", json=ASKED | {"stop": stop, "logprobs": True}).json()
    [choice] = whole["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
    spelled = "".join(token["token"] for token in choice["logprobs"]["content"])
    assert spelled.startswith(text)
    assert len(spelled) <= len(text) + 21
    lines = http.post("/v1/chat/completions", json=ASKED | {"stop": stop, "stream": True}).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events) == text


@pytest.mark.parametrize(
    "stop", [1, [1], {"a": 1}, ["x" * 1001], ["x"] * 65, [["x"]]], ids=lambda s: str(s)[:9]
)
def test_what_is_no_stop_is_refused(http: TestClient, stop: Any) -> None:
    refused = http.post("/v1/chat/completions", json=ASKED | {"stop": stop})
    assert (refused.status_code, refused.json()["error"]["param"].partition(".")[0]) == (400, "stop")


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        (
            "chat/completions",
            {"functions": [FUNCTION]},
            "functions: functions are no longer offered; use tools",
        ),
        ("chat/completions", {"logit_bias": {"1": 2}}, "logit_bias: it has no effect here"),
        ("chat/completions", {"nn": 1}, "nn: unknown field; remove it"),
        ("responses", {"previous_response_id": "r"}, "previous_response_id: nothing is stored here"),
    ],
)
def test_the_refusal_names_the_field_and_what_to_do(
    http: TestClient, path: str, more: dict[str, Any], says: str
) -> None:
    asked = ASKED if path != "responses" else {"model": "test", "input": "Is it?"}
    refused = http.post(f"/v1/{path}", json=asked | more)
    assert refused.status_code == 400
    assert says in refused.json()["error"]["message"]


class Place(BaseModel):
    city: str


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    call = {"calls": [{"name": "weather", "arguments": '{"city": "Bonn"}'},
                           {"name": "weather", "arguments": '{"city": ""}'}]}  # fmt: skip
    replies = {"How is Bonn?": call, "sunny": "It is sunny.", "Where?": '{"city": "Bonn"}'}
    models = {"m": {**scripted("fine", confidence=0.9), "replies": replies}}
    path = write(tmp_path_factory.mktemp("sdk"), models, [{"name": "only", "ask": ["m"]}])
    with (
        serving(path) as (_, url),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # the SDK's, about its own `parsed`
@pytest.mark.parametrize("dump", [{}, {"exclude_none": True}, {"exclude_unset": True}, None], ids=str)
def test_what_the_sdk_was_answered_it_may_send_back(
    client: openai.OpenAI, dump: dict[str, bool] | None
) -> None:
    def back(message: BaseModel) -> Any:
        return message if dump is None else message.model_dump(**dump)

    said: list[Any] = [{"role": "user", "content": "How is Bonn?"}]
    tools: list[Any] = [{"type": "function", "function": FUNCTION}]
    first = client.chat.completions.create(model="test", messages=said, tools=tools).choices[0].message
    said.append(back(first))
    assert len(first.tool_calls or ()) == 2
    said += [{"role": "tool", "tool_call_id": c.id, "content": "sunny"} for c in first.tool_calls or ()]
    second = client.chat.completions.create(model="test", messages=said, tools=tools).choices[0].message
    assert second.content == "It is sunny."
    said += [back(second), {"role": "user", "content": "Where?"}]
    third = (
        client.chat.completions.parse(model="test", messages=said, response_format=Place).choices[0].message
    )
    assert third.parsed == Place(city="Bonn")
    said += [back(third), {"role": "user", "content": "Fine?"}]
    assert client.chat.completions.create(model="test", messages=said).choices[0].message.content == "fine"


@pytest.mark.parametrize("dump", [{}, {"exclude_none": True}, None], ids=str)
def test_so_with_the_responses_api(client: openai.OpenAI, dump: dict[str, bool] | None) -> None:
    said: list[Any] = [{"role": "user", "content": "How is Bonn?"}]
    tools: list[Any] = [{"type": "function", "strict": True, **FUNCTION}]
    for _ in range(2):
        answer = client.responses.create(model="test", input=said, tools=tools)
        said += answer.output if dump is None else [item.model_dump(**dump) for item in answer.output]
        said += [
            {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
            for item in answer.output
            if item.type == "function_call"
        ]
    assert answer.output_text == "It is sunny."
    said.append({"role": "user", "content": "Where?"})
    parsed = client.responses.parse(model="test", input=said, text_format=Place)
    assert parsed.output_parsed == Place(city="Bonn")
    said += parsed.output if dump is None else [item.model_dump(**dump) for item in parsed.output]
    said.append({"role": "user", "content": "Fine?"})
    assert client.responses.create(model="test", input=said).output_text == "fine"


def test_a_streamed_message_may_be_sent_back(client: openai.OpenAI) -> None:
    said: list[Any] = [{"role": "user", "content": "How is Bonn?"}]
    tools: list[Any] = [{"type": "function", "function": FUNCTION}]
    with client.chat.completions.stream(model="test", messages=said, tools=tools) as stream:
        first = stream.get_final_completion().choices[0].message
    answers = [{"role": "tool", "tool_call_id": c.id, "content": "sunny"} for c in first.tool_calls or ()]
    said += [first, *answers]
    assert len({call.id for call in first.tool_calls or ()}) == 2
    second = client.chat.completions.create(model="test", messages=said, tools=tools)
    assert second.choices[0].message.content == "It is sunny."


def test_the_responses_api_gives_log_probabilities_on_demand(client: openai.OpenAI) -> None:
    include: list[Any] = ["message.output_text.logprobs"]
    with client.responses.stream(model="test", input="Fine?", include=include) as stream:
        streamed = stream.get_final_response()
    for answer in (client.responses.create(model="test", input="Fine?", include=include), streamed):
        part: Any = answer.output[0].content[0]  # type: ignore[union-attr]
        assert [(t.token, t.logprob) for t in part.logprobs] == [("fine", pytest.approx(-0.105, abs=1e-3))]
