"""Whole runs over conversations, tools and output schemas, through LangGraph and the trace store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import CHATML, make_gguf
from loopback import Loopback, chat
from scripting import REMOTE, checked, load, scripted

from cascade import RequestError, Result, TextPiece
from cascade.explain import describe
from cascade.lab.replays.replay import ReplaySettings, replay
from cascade.records import Message, Request, Tool
from cascade.trace import TraceStore, redact

ADD = Tool(name="add", parameters={"properties": {"a": {"type": "integer"}}, "required": ["a"]})
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
GOOD, BAD = '{"name": "Ada"}', '{"nome": "Ada"}'


def rules(result: Result) -> list[str]:
    return [step.decision.rule for step in result.trace]


def calling(**arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": "add", "arguments": arguments}]}


def test_a_conversation_reaches_the_model_and_the_store(tmp_path: Path) -> None:
    models = {"m": scripted(replies={"and now?": "more"})}
    said = [Message(role="system", content="be kind"), Message(role="user", content="hello"),
            Message(role="assistant", content="hi"), Message(role="user", content="and now?")]  # fmt: skip
    with load(tmp_path, models, [{"name": "s", "ask": ["m"]}]) as cascade:
        result = cascade.invoke(said, account="ada", metadata={"n": 1})
        again = cascade.run_sync(cascade.answer(result.request))
    assert (result.text, result.trace[0].calls[0].tokens_in) == ("more", 6)
    assert result.request.text == "and now?"
    assert (again.text, again.request) == (result.text, result.request)
    with TraceStore(str(tmp_path / "traces.db")) as store:
        assert store.get(result.run).request == result.request


@pytest.mark.parametrize("check", [{"confidence": {"by": "logprob"}, "accept": 0.5}, {}])
def test_an_invalid_answer_escalates_from_any_stage(tmp_path: Path, check: dict[str, Any]) -> None:
    models = {"small": scripted(BAD), "large": scripted(GOOD)}
    stages = [{"name": "first", "ask": ["small"], **check}, {"name": "last", "ask": ["large"], **check}]
    if not check:  # an unchecked stage ends a graph, so make it escalate on trouble only
        stages[0]["escalate"] = "last"
    with load(tmp_path, models, stages) as cascade:
        result = cascade.invoke("who?", output_schema=PERSON)
    assert rules(result) == ["invalid", "confident" if check else "unchecked"]
    assert (result.status, result.text) == ("accepted", GOOD)
    assert "'name' is missing" in (describe(result.trace[0].decision) or "")
    assert result.trace[0].estimate is None


def test_a_replay_decides_the_same(tmp_path: Path) -> None:
    with load(tmp_path, {"small": scripted(BAD), "large": scripted(GOOD)}, [
        checked("first", "small"), {"name": "last", "ask": ["large"]}
    ]) as cascade:  # fmt: skip
        result = cascade.invoke("who?", output_schema=PERSON)
    with TraceStore(str(tmp_path / "traces.db")) as store:
        stored = store.get(result.run)
    again = replay(stored, ReplaySettings(cascade.config, None, {}, lambda name, request: 0.0))
    assert again.trace == stored.trace
    assert again.unknown is None


def test_the_last_stage_abstains_and_keeps_the_draft(tmp_path: Path) -> None:
    with load(tmp_path, {"m": scripted(BAD)}, [{"name": "s", "ask": ["m"]}], on_exhausted="best") as cascade:
        result = cascade.invoke("who?", output_schema=PERSON)
    assert (result.status, result.rule, result.text, result.draft) == ("abstained", "invalid", None, BAD)


def test_of_several_drafts_only_the_valid_ones_are_judged(tmp_path: Path) -> None:
    models = {"sure": scripted(BAD), "unsure": scripted(GOOD, confidence=0.7)}
    with load(tmp_path, models, [checked("s", "sure", "unsure", accept=0.6)]) as cascade:
        result = cascade.invoke("who?", output_schema=PERSON)
    assert (result.text, result.model) == (GOOD, "unsure")
    with load(tmp_path, models, [{"name": "s", "ask": ["sure", "unsure"]}]) as cascade:
        assert cascade.invoke("who?", output_schema=PERSON).text == GOOD


def test_an_invalid_draft_counts_against_agreement(tmp_path: Path) -> None:
    replies = {"who?": [GOOD, '{ "name":"Ada" }', BAD, GOOD]}
    models = {"m": scripted(replies=replies)}
    with load(tmp_path, models, [checked("s", "m", by="agreement", samples=4, accept=0.75)]) as cascade:
        result = cascade.invoke("who?", output_schema=PERSON)
    assert (result.text, result.confidence) == (GOOD, 0.75)


def test_a_valid_tool_call_is_the_answer(tmp_path: Path) -> None:
    models = {"small": scripted(calling(a="one")), "large": scripted(calling(a=1))}
    with load(tmp_path, models, [checked("first", "small"), {"name": "last", "ask": ["large"]}]) as cascade:
        result = cascade.invoke("add", tools=[ADD])
        plain = cascade.invoke("add", tools=[ADD], tool_choice="none")
    assert rules(result) == ["invalid", "unchecked"]
    assert (result.status, result.text) == ("accepted", "")
    assert [(call.name, json.loads(call.arguments)) for call in result.tool_calls] == [("add", {"a": 1})]
    assert plain.tool_calls == ()
    with TraceStore(str(tmp_path / "traces.db")) as store:
        assert store.get(result.run) == result


def test_a_tools_result_continues_the_conversation(tmp_path: Path) -> None:
    models = {"m": scripted(replies={"add 1": calling(a=1), "2": "It is 2."})}
    with load(tmp_path, models, [{"name": "s", "ask": ["m"]}]) as cascade:
        first = cascade.invoke("add 1", tools=[ADD])
        said = [
            Message(role="user", content="add 1"),
            Message(role="assistant", tool_calls=first.tool_calls),
            Message(role="tool", content="2", tool_call_id=first.tool_calls[0].id),
        ]
        assert cascade.invoke(said, tools=[ADD]).text == "It is 2."


def test_a_model_with_labels_is_not_asked_for_json_or_tools(tmp_path: Path) -> None:
    models = {"nano": scripted("yes", labels=["yes", "no"]), "large": scripted(GOOD)}
    stages = [checked("first", "nano", by="labels"), {"name": "last", "ask": ["large"]}]
    with load(tmp_path, models, stages) as cascade:
        asked = [
            cascade.invoke("x", output_schema=PERSON),
            cascade.invoke("x", tools=[ADD]),
            cascade.invoke("x", tools=[ADD], tool_choice="none"),
            cascade.invoke([Message(role="user", content="old"), Message(role="user", content="x")]),
        ]
    assert [rules(result)[0] for result in asked] == ["unavailable", "unavailable", "confident", "confident"]
    assert "answers with its labels only" in (describe(asked[0].trace[0].decision) or "")
    assert asked[0].trace[0].calls == ()


def test_a_gate_reads_the_last_user_message_alone(tmp_path: Path) -> None:
    door = {"by": "classifier", "model": "door", "to": {"left": "l", "right": "r"}}
    models = {
        "door": scripted(replies={"go left": "left"}, labels=["left", "right"]),
        "a": scripted(GOOD), "b": scripted(BAD),
    }  # fmt: skip
    stages = [{"name": "d", "gate": door}, {"name": "l", "ask": ["a"], "escalate": "end"},
              {"name": "r", "ask": ["b"]}]  # fmt: skip
    with load(tmp_path, models, stages) as cascade:
        said = [Message(role="user", content="hi"), Message(role="user", content="go left")]
        assert cascade.invoke(said, output_schema=PERSON).text == GOOD


async def test_nothing_that_may_prove_invalid_is_streamed(tmp_path: Path) -> None:
    with load(tmp_path, {"m": scripted(GOOD)}, [{"name": "s", "ask": ["m"]}]) as cascade:
        for options in ({"output_schema": PERSON}, {"tools": [ADD]}):
            events = [event async for event in cascade.astream("x", **options)]
            assert not [event for event in events if isinstance(event, TextPiece)]
            assert isinstance(events[-1], Result)
            assert events[-1].text == GOOD
        live = [event async for event in cascade.astream_request(Request(text="x"))]
        assert "".join(event.text for event in live if isinstance(event, TextPiece)) == GOOD


async def test_an_unchecked_local_model_streams_live(tmp_path: Path) -> None:
    make_gguf(tmp_path / "m.gguf", says="one two three", chat_template=CHATML)
    with load(
        tmp_path, {"m": {"kind": "llamacpp", "path": "m.gguf"}}, [{"name": "s", "ask": ["m"]}]
    ) as cascade:
        events = [event async for event in cascade.astream("x")]
        pieces = [event.text for event in cascade.stream("x") if isinstance(event, TextPiece)]
    assert (
        [event.text for event in events if isinstance(event, TextPiece)]
        == ["one", " two", " three"]
        == pieces
    )


def test_the_whole_conversation_is_priced_ahead(tmp_path: Path) -> None:
    with load(
        tmp_path, {"m": scripted("ok", max_tokens=1, **REMOTE)}, [{"name": "s", "ask": ["m"]}],
        limits={"cost_usd": 0.00001},
    ) as cascade:  # fmt: skip
        said = [Message(role="system", content="word " * 10), Message(role="user", content="word")]
        assert rules(cascade.invoke("word")) == ["unchecked"]
        assert rules(cascade.invoke(said)) == ["over_cost"]


def test_an_openai_answer_with_bad_arguments_is_paid_for_and_escalates(tmp_path: Path) -> None:
    broken = [{"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": '}}]
    with Loopback() as server:
        server.answers = [chat(None, tool_calls=broken, finish_reason="tool_calls", usage=(1000, 500))]
        remote = {
            "kind": "openai",
            "model": "m",
            "url": server.url,
            "key_env": None,
            "price": REMOTE["price"],
        }
        models = {"m": remote, "large": scripted(calling(a=2))}
        stages = [{"name": "first", "ask": ["m"]}, {"name": "last", "ask": ["large"]}]
        with load(tmp_path, models, stages) as cascade:
            result = cascade.invoke("add", tools=[ADD])
    assert rules(result) == ["invalid", "unchecked"]
    assert result.cost_usd == pytest.approx(0.002)
    assert result.trace[0].calls[0].tool_calls[0].arguments == '{"a": '


def test_langgraph_callers_are_checked_too(tmp_path: Path) -> None:
    with load(tmp_path, {"m": scripted(GOOD)}, [{"name": "s", "ask": ["m"]}]) as cascade:
        messages = [{"role": "user", "content": "who?"}]
        state = cascade.graph.invoke({"request": {"text": "", "messages": messages}})
        assert state["request"]["text"] == "who?"
        with pytest.raises(RequestError, match="only references into itself"):
            cascade.graph.invoke({"request": {"text": "x", "output_schema": {"$ref": "http://a"}}})


def test_a_trace_without_texts_quotes_no_arguments(tmp_path: Path) -> None:
    models = {"m": scripted(calling(a="PELICAN4711"))}
    with load(tmp_path, models, [{"name": "s", "ask": ["m"]}]) as cascade:
        result = cascade.invoke("go on", tools=[ADD])
        odd = cascade.invoke("go on", tools=[Tool(name="PELICAN")])
    assert "PELICAN4711" in result.trace[0].calls[0].tool_calls[0].arguments
    quiet = redact(result)
    assert "PELICAN4711" not in quiet.model_dump_json()
    assert quiet.trace[0].calls[0].invalid
    assert quiet.trace[0].decision.detail == "m: the arguments of 'add': $.a: violates type \"integer\""
    assert quiet.trace[0].calls[0].tool_calls[0].name == "add"
    assert (redact(odd).trace[0].calls[0].tool_calls[0].name or "").startswith("sha256:")
