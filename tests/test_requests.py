"""Requests from outside: what is taken, what is refused and how it is said, and schemas that mean harm."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cascade.errors import RequestError
from cascade.formats.schemas import MAX_STEPS, parse_json, schema_problem, value_problem
from cascade.records import Message, Request, Tool, ToolCall
from cascade.requests import build_request, check_request

USER = {"role": "user", "content": "hello"}
CALLS = {"role": "assistant", "tool_calls": [{"id": "c1", "name": "add", "arguments": "{}"}]}


def test_a_text_is_a_request() -> None:
    assert build_request("hello", {"local_only": True}) == Request(text="hello", local_only=True)


def test_the_text_of_a_conversation_is_its_last_user_message() -> None:
    answer = {"role": "tool", "content": "5", "tool_call_id": "c1"}
    request = build_request([USER, {"role": "user", "content": "add 2 and 3"}, CALLS, answer])
    assert request.text == "add 2 and 3"
    assert request.messages[2].tool_calls == (ToolCall(id="c1", name="add", arguments="{}"),)
    assert build_request(request.messages) == request


@pytest.mark.parametrize(
    ("asked", "options", "said"),
    [
        (7, {}, "text is int"),
        (" ", {}, "text is empty"),
        ([], {}, "messages is empty"),
        ([{"role": "king", "content": "x"}], {}, "messages.0.role"),
        ([{"role": "user", "content": "x", "size": 7}], {}, "messages.0.size"),
        ([{"role": "system", "content": "x"}], {}, "no user message"),
        ([USER, {"role": "assistant", "content": "hi"}], {}, "last message has role 'assistant'"),
        ([{"role": "user", "content": ""}], {}, r"messages\[0\]: text is empty"),
        ([{"role": "system", "content": "a\0"}, USER], {}, r"messages\[0\]: text holds a NUL"),
        ([{"role": "system", "content": "\ud800"}, USER], {}, r"messages\[0\]"),
        ([{"role": "user", "content": "x" * 600_000}] * 2, {}, "1200000 bytes"),
        ([USER] * 1001, {}, "holds 1001"),
        ([USER, {"role": "tool", "content": "5", "tool_call_id": "c1"}], {}, "answers tool call 'c1'"),
        ([USER, {"role": "tool", "content": "5"}], {}, "answers tool call None"),
        ([USER | {"tool_calls": CALLS["tool_calls"]}], {}, "only an assistant calls tools"),
        ([USER | {"tool_call_id": "c1"}], {}, "only a tool answers a call"),
        ("x", {"tools": [{"name": "a b"}]}, "letters, digits"),
        ("x", {"tools": [{"name": "a"}, {"name": "a"}]}, "given twice"),
        ("x", {"tools": [{"name": f"t{i}"} for i in range(129)]}, "holds 129"),
        ("x", {"tools": [{"name": "a", "parameters": {"type": "x"}}]}, r"tools\[0\].parameters is no JSON"),
        ("x", {"tool_choice": "b", "tools": [{"name": "a"}]}, "known: auto, none, required, a"),
        ("x", {"tool_choice": "required"}, "there are no tools"),
        ("x", {"output_schema": []}, "output_schema"),
        ("x", {"output_schema": {"type": "objekt"}}, "output_schema is no JSON Schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(asked: Any, options: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        build_request(asked, options)


def test_a_ready_request_is_checked_the_same_way() -> None:
    ready = Request(text="", messages=(Message(role="user", content="hello"),), tools=(Tool(name="add"),))
    assert check_request(ready).text == "hello"
    with pytest.raises(RequestError, match="known: auto"):
        check_request(ready.model_copy(update={"tool_choice": "nobody"}))


def nested(levels: int) -> dict[str, Any]:
    return {} if levels == 0 else {"items": nested(levels - 1)}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{}", "is str"),
        ({"const": object()}, "not plain JSON"),
        ({"const": float("nan")}, "not plain JSON"),
        ({"const": "x" * 100_001}, "bytes"),
        (nested(33), "nested deeper"),
        ({"$ref": "https://example.org/a.json"}, "only references into itself"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "only references into itself"),
        ({"$ref": "#/$defs/none"}, "does not have"),
        ({"$dynamicRef": "#x"}, "not supported"),
        ({"unevaluatedProperties": False}, "not supported"),
        ({"items": {"$schema": "http://json-schema.org/draft-07/schema#"}}, "not supported"),
        ({"patternProperties": {"[": {}}}, "no regular expression"),
        ({"pattern": "x" * 2001}, "2001 characters"),
        ({"anyOf": [{"pattern": "a"}] * 101}, "more than 100 patterns"),
        ({"anyOf": [{}] * 5000}, "more than 5000 subschemas"),
        ({"enum": [*range(5001)]}, "a list of 1 to 5000 values"),
        ({"const": 2**1025}, "1026 bits"),
        ({"title": "t", "$ref": "#/title"}, "does not have as a schema"),
        ({"enum": [{}], "$ref": "#/enum/0"}, "does not have as a schema"),
        ({"properties": {"a": {"required": True}}}, "required is True; expected a list of names"),
        ({"items": {"$id": "http://127.0.0.1/x"}}, "#/items/$id, which is not supported"),
        ({"$id": "https://example.org/me.json"}, "has #/$id"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "is not known"),
        ({"minimum": "1"}, "#/minimum is '1'; expected a number"),
        ({"minimum": 1, "exclusiveMinimum": True}, "expected a number"),
        ({"items": 3}, "#/items is 3; expected an object, true or false"),
        ({"anyOf": []}, "a list of at least one schema"),
        ({"multipleOf": 0}, "a number above 0"),
        ({"\ud800": 1}, "not valid Unicode"),
        ({"required": "a"}, "no JSON Schema"),
    ],
)  # fmt: skip
def test_schemas_that_are_not_taken(schema: Any, said: str) -> None:
    assert said in (schema_problem(schema) or "")


def test_names_that_look_like_keywords_are_just_names() -> None:
    schema = {
        "properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}},
        "enum": [{"$ref": 7}],
    }
    assert schema_problem(schema) is None


TREE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}, "next": {"$ref": "#"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"name": "a", "next": {"name": "b"}}, None),
        ({"name": "A"}, "$.name: violates pattern"),
        ({"name": "a", "next": {}}, "$.next: 'name' is missing"),
        ({"name": "a", "other": 1}, "$: has a property that is not expected; known: name, next"),
        ([], '$: violates type "object"'),
        ({"name": "a", "next": {"next": {"name": 1}, "name": "b"}}, "$.next.next.name: violates type"),
    ],
)
def test_values_are_judged(value: Any, said: str | None) -> None:
    assert schema_problem(TREE) is None
    found = value_problem(TREE, value)
    assert found is None if said is None else said in (found or "")


def doubling(levels: int) -> dict[str, Any]:
    """A schema of 2^levels checks."""
    twice = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**twice, f"d{levels}": {"type": "object"}}}


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        (doubling(40), {}, f"more than {MAX_STEPS} steps"),
        ({"pattern": "^(a+)+$"}, "a" * 50_000 + "!", "violates pattern"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, {}, "without an end"),
        ({"$schema": TREE["$schema"], "allOf": [{"$ref": "#"}, {"$ref": "#"}]}, {}, "without an end"),
        ({"uniqueItems": True}, [{"a": i} for i in range(20_000)] + [{"a": 1.0}], "violates uniqueItems"),
        ({"items": {"type": "integer"}}, [1] * MAX_STEPS, f"more than {MAX_STEPS} steps"),
    ],
)
def test_a_hostile_schema_ends_in_bounded_time(schema: Any, value: Any, said: str) -> None:
    assert schema_problem(schema) is None
    start = time.process_time()
    assert said in (value_problem(schema, value) or "")
    assert time.process_time() - start < 30  # unbounded, the first one takes years


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
    {"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False},
    {"type": "array", "uniqueItems": True, "items": {"type": ["integer", "string", "boolean"]}},
    {"anyOf": [{"type": "string", "pattern": "a+"}, {"type": "array", "prefixItems": [{"const": 1}]}]},
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([1.0, 0.5]) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(schema=st.sampled_from(SCHEMAS), value=VALUES)
def test_our_keywords_judge_as_the_librarys_own(schema: dict[str, Any], value: Any) -> None:
    assert (value_problem(schema, value) is None) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("text", ["", "{", "NaN", '{"a": Infinity}', "[" * 100_000, "1" * 5000, "{'a': 1}"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words
        parse_json(text)
