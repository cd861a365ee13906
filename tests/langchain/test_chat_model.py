"""A cascade as a LangChain chat model, beyond the standard tests: streaming, metadata, refusals."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from loopback import Loopback, status, stream
from pydantic import BaseModel
from scripting import REMOTE, checked, load, scripted, write

from cascade import Cascade, RequestError
from cascade.langchain import AbstainedError, ChatCascade
from cascade.trace import TraceStore

SMALL = scripted("maybe not", confidence=0.2, tier="haiku", **REMOTE)
STAGES: list[dict[str, Any]] = [checked("first", "small"), {"name": "last", "ask": ["large"]}]


class Person(BaseModel):
    """Someone."""

    name: str
    age: int


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def two(folder: Path, large: Any, **settings: Any) -> Cascade:
    return load(folder, {"small": SMALL, "large": large}, STAGES, **settings)


@pytest.fixture
def cascade(tmp_path: Path) -> Iterator[Cascade]:
    replies = {"sum": {"calls": [{"arguments": {"a": 1, "b": 2}}]}, "who": '{"name": "Ada", "age": 36}'}
    with two(tmp_path, scripted("one two three", replies=replies, tier="opus", **REMOTE)) as loaded:
        yield loaded


def test_an_answer_says_how_it_came_about(cascade: Cascade, tmp_path: Path) -> None:
    with get_usage_metadata_callback() as usage:
        answer = cascade.as_chat_model().invoke([SystemMessage("be brief"), HumanMessage("hello there")])
    assert answer.text == "one two three"
    said = answer.response_metadata["cascade"]
    assert (said["status"], said["rule"], said["stage"], said["tier"], said["model"]) == (
        "accepted", "unchecked", "last", "opus", "large"
    )  # fmt: skip
    assert [(step["stage"], step["action"], step["rule"]) for step in said["steps"]] == [
        ("first", "escalate", "below_threshold"),
        ("last", "accept", "unchecked"),
    ]
    assert said["steps"][0]["confidence"] == pytest.approx(0.2)
    # Both models read 4 words; they wrote 2 and 3.
    assert answer.usage_metadata == {"input_tokens": 8, "output_tokens": 5, "total_tokens": 13}
    assert usage.usage_metadata[cascade.version]["total_tokens"] == 13
    assert said["cost_usd"] == pytest.approx((8 * 1 + 5 * 2) / 1e6)
    with TraceStore(str(tmp_path / "traces.db")) as store:
        stored = store.get(said["run"])
    assert [message.role for message in stored.request.messages] == ["system", "user"]


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.heard: list[str] = []
        self.ended: list[Any] = []

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.heard.append(token)

    def on_llm_end(self, response: Any, **_: Any) -> None:
        self.ended.append(response)


def test_accepted_text_streams_and_callbacks_hear_it(cascade: Cascade) -> None:
    tokens = Tokens()
    chunks = list(cascade.as_chat_model().stream("hello", config={"callbacks": [tokens]}))
    assert [chunk.content for chunk in chunks] == ["one", " two", " three", ""]
    assert tokens.heard == ["one", " two", " three", ""]
    assert len(tokens.ended) == 1
    full = chunks[0]
    for chunk in chunks[1:]:
        full += chunk
    assert full.usage_metadata == {"input_tokens": 2, "output_tokens": 5, "total_tokens": 7}
    assert full.response_metadata["cascade"]["status"] == "accepted"


async def test_a_checked_answer_comes_in_one_piece(tmp_path: Path) -> None:
    with load(tmp_path, {"m": scripted("one two")}, [checked("s", "m")]) as cascade:
        chunks = [chunk async for chunk in cascade.as_chat_model().astream("hello")]
    assert [chunk.content for chunk in chunks] == ["one two"]
    assert isinstance(chunks[0], AIMessageChunk)


def test_a_stop_sequence_ends_the_answer(cascade: Cascade) -> None:
    model = cascade.as_chat_model(stop=["three"])
    assert model.invoke("hello").text == "one two "
    assert model.invoke("hello", stop=["two", "t"]).text == "one "
    assert [chunk.content for chunk in model.stream("hello")] == ["one two "]


def test_a_stream_that_breaks_off_is_never_passed_off_as_the_answer(tmp_path: Path) -> None:
    with Loopback() as server:
        server.answers = [stream(["half an", " answer"], finish_reason=None)]
        remote = {"kind": "openai", "model": "m", "url": server.url, "key_env": None, "local": True}
        models = {"m": remote, "large": scripted("something else")}
        stages = [{"name": "a", "ask": ["m"]}, {"name": "b", "ask": ["large"]}]
        with load(tmp_path, models, stages) as cascade:
            model = cascade.as_chat_model()
            with pytest.raises(Exception, match="broke off while its answer was streamed"):
                list(model.stream("hello"))
            assert model.invoke("hello").text == "something else"


def test_a_run_without_an_answer_is_an_error_or_empty(tmp_path: Path) -> None:
    with load(tmp_path, {"m": scripted("no idea", confidence=0.1)}, [checked("s", "m")]) as cascade:
        quiet = cascade.as_chat_model(on_abstain="empty")
        answer = quiet.invoke("hello")
        assert (answer.content, answer.response_metadata["finish_reason"]) == ("", "abstain")
        assert answer.response_metadata["cascade"]["status"] == "abstained"
        assert list(quiet.stream("hello"))[-1].content == ""
        strict = cascade.as_chat_model()
        with pytest.raises(AbstainedError, match="below_threshold") as caught:
            strict.invoke("hello")
        assert caught.value.result.draft == "no idea"
        with pytest.raises(AbstainedError):
            list(strict.stream("hello"))


def test_local_only_and_account_reach_the_request(cascade: Cascade) -> None:
    model = cascade.as_chat_model(account="team", on_abstain="empty")
    shut = model.invoke("hello", local_only=True)
    assert shut.response_metadata["cascade"]["rule"] == "local_only"
    with pytest.raises(AbstainedError, match="local_only"):
        cascade.as_chat_model(local_only=True).invoke("hello", local_only=False)
    with TraceStore(cascade.trace_db or "") as store:
        assert store.get(shut.response_metadata["cascade"]["run"]).request.account == "team"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([HumanMessage([{"type": "image", "url": "http://127.0.0.1/a.png"}])], "a cascade takes text"),
        ([HumanMessage([{"type": "input_audio", "input_audio": {}}])], "type 'input_audio'"),
        ([HumanMessage([{"type": "tool_use", "id": "1"}])], "type 'tool_use'"),
        ([HumanMessage("a"), AIMessage("b")], "last message has role 'assistant'"),
        ([HumanMessage("a"), ToolMessage("5", tool_call_id="none")], "answers tool call 'none'"),
        ([ChatMessage("a", role="king")], "role 'king'"),
        ([HumanMessage("a"), FunctionMessage("5", name="f")], "FunctionMessage"),
        ([HumanMessage("")], "text is empty"),
    ],
)  # fmt: skip
def test_what_a_cascade_cannot_read_is_refused(cascade: Cascade, messages: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        cascade.as_chat_model().invoke(messages)


def test_wrong_arguments_are_refused(cascade: Cascade) -> None:
    model = cascade.as_chat_model()
    with pytest.raises(RequestError, match="unknown argument colour; known: account"):
        model.invoke("hello", colour=0.5)
    with pytest.raises(RequestError, match="tool_choice is 'sub'; known: auto, none, any, required, add"):
        model.bind_tools([add], tool_choice="sub")
    with pytest.raises(RequestError, match="is no function"):
        model.invoke("hello", tools=[{"type": "web_search"}])
    with pytest.raises(RequestError, match="only references into itself"):
        model.invoke("hello", output_schema={"$ref": "http://127.0.0.1/a.json"})


def test_the_application_runs_the_tools(cascade: Cascade) -> None:
    model = cascade.as_chat_model().bind_tools([add])
    asked = [HumanMessage("sum")]
    called = model.invoke(asked)
    assert called.response_metadata["finish_reason"] == "tool_calls"
    result = add.invoke(called.tool_calls[0])
    assert result.content == "3"
    assert model.invoke([*asked, called, result]).text == "one two three"


@pytest.mark.parametrize("choice", ["none", None, False, "any", True, {"function": {"name": "add"}}])
def test_every_way_to_choose_a_tool(cascade: Cascade, choice: Any) -> None:
    answer = cascade.as_chat_model().bind_tools([add], tool_choice=choice).invoke("sum")
    assert bool(answer.tool_calls) == (choice != "none")


def test_structured_output_is_valid_or_an_error(cascade: Cascade) -> None:
    model = cascade.as_chat_model()
    assert model.with_structured_output(Person).invoke("who") == Person(name="Ada", age=36)
    both = model.with_structured_output(Person, include_raw=True)
    found = both.invoke("who")
    assert (found["parsed"], found["parsing_error"]) == (Person(name="Ada", age=36), None)
    with pytest.raises(AbstainedError, match="invalid"):  # "one two three" is no Person
        both.invoke("hello")
    quiet = cascade.as_chat_model(on_abstain="empty").with_structured_output(Person, include_raw=True)
    failed = quiet.invoke("hello")
    assert failed["parsed"] is None
    assert failed["parsing_error"] is not None
    assert failed["raw"].response_metadata["cascade"]["rule"] == "invalid"


async def test_many_at_once(cascade: Cascade) -> None:
    model = cascade.as_chat_model()
    answers = await asyncio.gather(*(model.ainvoke(f"hello {n}") for n in range(20)))
    assert len({answer.response_metadata["cascade"]["run"] for answer in answers}) == 20
    assert [answer.text for answer in model.batch(["a", "b"])] == ["one two three"] * 2


async def test_a_chat_model_in_a_node_of_a_graph_with_checkpoints_is_apart_from_it(cascade: Cascade) -> None:
    model = cascade.as_chat_model()

    async def node(state: MessagesState) -> MessagesState:
        return {"messages": [await model.ainvoke(state["messages"])]}

    outer = StateGraph(MessagesState)
    outer.add_node("node", node)
    outer.add_edge(START, "node")
    outer.add_edge("node", END)
    saver = InMemorySaver()
    compiled = outer.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "t"}}
    seen = []
    async for namespace, _ in compiled.astream({"messages": [HumanMessage("hello")]}, config, subgraphs=True):
        seen.append(namespace)
    assert seen == [()]
    state = await compiled.aget_state(config)
    assert state.values["messages"][-1].text == "one two three"
    assert {entry.config["configurable"]["checkpoint_ns"] for entry in saver.list(None)} == {""}


def test_settings_name_the_model_in_traces_and_caches(cascade: Cascade) -> None:
    model = cascade.as_chat_model(account="a")
    assert isinstance(model, ChatCascade)
    assert model._get_ls_params()["ls_model_name"] == cascade.version
    assert model._identifying_params != cascade.as_chat_model()._identifying_params
    assert "Cascade object" not in repr(model)


ASKING = """
import asyncio, sys
from langchain_core.language_models import FakeListChatModel
from langchain_core.tracers.langchain import wait_for_all_tracers
from cascade import Cascade

cascade = Cascade.load(sys.argv[1])
model = cascade.as_chat_model()
if sys.argv[2] == "other":
    model = FakeListChatModel(responses=["x"] * 9)
else:
    structured = model.with_structured_output({"title": "Any", "type": "object"}, method="json_mode")
    assert structured.invoke("json") == structured.batch(["json"])[0] == {}
    assert [*structured.stream("json")][-1] == {}
    asked = {"request": {"text": "hello", "local_only": True}}
    assert cascade.graph.invoke(asked)["trace"]
    assert [*cascade.graph.stream(asked)]
assert model.invoke("hello").text
assert list(model.stream("hello"))
assert model.batch(["hello"])
assert list(model.stream_events("hello", version="v3"))


async def asynchronously():
    assert (await model.ainvoke("hello")).text
    assert [chunk async for chunk in model.astream("hello")]
    assert [event async for event in await model.astream_events("hello", version="v3")]
    assert [event async for event in model.astream_events("hello", version="v2")]
    if sys.argv[2] == "cascade":
        assert await structured.ainvoke("json") == {}
        assert [piece async for piece in structured.astream("json")][-1] == {}
        assert (await cascade.graph.ainvoke(asked))["trace"]
        assert [event async for event in cascade.graph.astream_events(asked, version="v2")]


asyncio.run(asynchronously())
wait_for_all_tracers()
cascade.close()
"""


@pytest.mark.parametrize("which", ["cascade", "other"])
def test_langsmiths_variables_alone_send_nothing(tmp_path: Path, which: str) -> None:
    path = write(tmp_path, {"m": scripted("yes", replies={"json": "{}"})}, [{"name": "s", "ask": ["m"]}])
    with Loopback() as server:
        server.answers = [status(202)]
        names = {"TRACING": "true", "API_KEY": "k", "ENDPOINT": server.root}
        env = os.environ | {f"LANGSMITH_{name}": value for name, value in names.items()}
        command = [sys.executable, "-c", ASKING, str(path), which]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        posted = [seen for seen in server.requests if seen.method == "POST"]
    assert bool(posted) == (which == "other")
