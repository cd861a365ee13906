"""What LangChain and OpenAI's clients call messages and tools is taken by `Cascade.invoke`, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel
from scripting import load, scripted

from cascade import Cascade, RequestError
from cascade.langchain._inputs import plain_input, plain_options
from cascade.records import Message, Request, Tool, ToolCall
from cascade.requests import build_request


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


class Divide(BaseModel):
    """Divide two numbers."""

    a: int
    b: int


@pytest.fixture
def cascade(tmp_path: Path) -> Iterator[Cascade]:
    replies = {"sum": {"calls": [{"arguments": {"a": 1, "b": 2}}]}, "3": "three"}
    with load(tmp_path, {"m": scripted("hello", replies=replies)}, [{"name": "s", "ask": ["m"]}]) as loaded:
        yield loaded


RECORDS = [
    Message(role="system", content="be brief"),
    Message(role="user", content="sum"),
    Message(role="assistant", content="", tool_calls=(ToolCall(id="c1", name="add", arguments='{"a": 1}'),)),
    Message(role="tool", content="3", tool_call_id="c1"),
]
CALL = {"name": "add", "args": {"a": 1}, "id": "c1"}
LANGCHAIN: list[BaseMessage] = [
    SystemMessage("be brief"), HumanMessage("sum"), AIMessage("", tool_calls=[CALL]),  # type: ignore[list-item]
    ToolMessage("3", tool_call_id="c1"),
]  # fmt: skip
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
OPENAI: list[Any] = [
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "sum"}]},
    ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [OPENAI_CALL]}
    ).model_dump(),
    {"role": "tool", "content": "3", "tool_call_id": "c1"},
]
PAIRS = [("system", "be brief"), ("human", "sum"), *LANGCHAIN[2:]]
SHAPES = {"record": RECORDS, "langchain": LANGCHAIN, "openai": OPENAI, "pair": PAIRS,
          "fields": [message.model_dump() for message in RECORDS]}  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*(st.sampled_from(sorted(SHAPES)) for _ in RECORDS)))
def test_any_mixture_of_shapes_is_the_same_conversation(shapes: tuple[str, ...]) -> None:
    mixed = [SHAPES[shape][index] for index, shape in enumerate(shapes)]
    assert build_request(plain_input(mixed)) == build_request(RECORDS)


def test_a_conversation_with_tools_in_any_shape_is_answered(cascade: Cascade) -> None:
    for messages in SHAPES.values():
        assert cascade.invoke(messages).text == "three"
        assert cascade.batch([messages, "x"])[0].text == "three"
        assert asyncio.run(cascade.ainvoke(messages)).text == "three"
    prompt = ChatPromptTemplate.from_messages([("system", "be brief"), ("human", "{what}")])
    assert cascade.invoke(prompt.invoke({"what": "3"})).text == "three"  # type: ignore[arg-type]


@pytest.mark.parametrize("offered", [add, convert_to_openai_tool(add), "record", "fields"])
def test_tools_are_records_langchains_or_openais(cascade: Cascade, offered: Any) -> None:
    function = convert_to_openai_tool(add)["function"]
    record = Tool.model_validate(function)
    offered = {"record": record, "fields": record.model_dump()}.get(offered, offered) if isinstance(
        offered, str) else offered  # fmt: skip
    choice: Any = {"type": "function", "function": {"name": "add"}}
    result = cascade.invoke("sum", tools=[offered], tool_choice=choice)
    assert [(call.name, call.arguments) for call in result.tool_calls] == [("add", '{"a": 1, "b": 2}')]
    assert build_request("sum", plain_options({"tools": [offered]})).tools == (record,)


def test_functions_and_pydantic_classes_are_tools() -> None:
    request: Request = build_request(
        "x", plain_options({"tools": [multiply, Divide], "tool_choice": "Divide"})
    )
    assert [tool.name for tool in request.tools] == ["multiply", "Divide"]
    assert [tool.description for tool in request.tools] == ["Multiply two numbers.", "Divide two numbers."]


@pytest.mark.parametrize(("messages", "reason"), [
    ([3], r"messages\[0\] is a int 3, which is no message .*expected a cascade\.Message"),
    ([HumanMessage("a"), {"content": "x", "name": "y"}], r"messages\[1\] is a dict"),
    ([("king", "x")], r"messages\[0\] is a tuple"),
    ([HumanMessage("a"), HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])],
     r"messages\[1\] holds a block of type 'image_url'"),
])  # fmt: skip
def test_what_is_no_message_is_refused_and_named(cascade: Cascade, messages: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        cascade.invoke(messages)


@pytest.mark.parametrize("offered", [3, {"type": "web_search"}, {"type": "function", "function": 3}])
def test_what_is_no_function_is_refused_and_named(cascade: Cascade, offered: Any) -> None:
    with pytest.raises(RequestError, match="is no function"):
        cascade.invoke("hello", tools=[offered])


MEANINGLESS: dict[str, Any] = {
    "temperature": 0.3, "max_tokens": 5, "seed": 1, "top_p": 0.5, "logit_bias": {}, "modalities": ["text"],
    "n": 1,
    "user": "me", "store": True, "stream_options": {"include_usage": True}, "parallel_tool_calls": False,
    "prediction": None, "functions": None, "response_format": {"type": "text"}, "timeout": 3,
}  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.sets(st.sampled_from(sorted(MEANINGLESS))))
def test_the_chat_model_passes_over_what_means_nothing_here(cascade: Cascade, names: set[str]) -> None:
    model = cascade.as_chat_model()
    assert model.invoke("x", **{name: MEANINGLESS[name] for name in names}).text == "hello"


@pytest.mark.parametrize(("name", "value"), [
    ("logit_bias", {"5": 1}), ("functions", [{"name": "f"}]), ("modalities", ["audio"]), ("n", 2),
    ("colour", "red"), ("response_format", {"type": "xml"}),
])  # fmt: skip
def test_the_chat_model_refuses_what_would_have_no_effect(cascade: Cascade, name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name):
        cascade.as_chat_model().invoke("x", **{name: value})


def test_response_format_asks_for_json(tmp_path: Path) -> None:
    schema = {"title": "T", "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with load(tmp_path, {"m": scripted('{"a": 1}')}, [{"name": "s", "ask": ["m"]}]) as cascade:
        model = cascade.as_chat_model()
        for asked in (
            {"type": "json_schema", "json_schema": {"name": "T", "schema": schema}},
            {"type": "json_object"},
        ):
            assert model.invoke("x", response_format=asked).text == '{"a": 1}'
        wrong = schema | {"required": ["b"]}
        with pytest.raises(Exception, match="invalid"):
            model.invoke(
                "x", response_format={"type": "json_schema", "json_schema": {"name": "T", "schema": wrong}}
            )


EXTRAS = {
    "parsed": None, "reasoning_content": "hm", "annotations": [], "refusal": None, "audio": None,
    "name": "me", "function_call": None, "cache_control": {"type": "ephemeral"}, "id": "m1",
}  # fmt: skip


@given(st.sets(st.sampled_from(sorted(EXTRAS))), st.sampled_from([*range(len(OPENAI))]))
def test_what_only_clients_read_is_passed_over(names: set[str], index: int) -> None:
    messages = [dict(message) for message in OPENAI]
    messages[index] |= {name: EXTRAS[name] for name in names}
    assert build_request(plain_input(messages)) == build_request(RECORDS)
