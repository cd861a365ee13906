"""Validity: which answers are what the request asks for, and how sure a model was of each field."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.confidence.validity import MAX_FIELDS, canonical_json, fields, measured, problem
from cascade.models.base import Reply
from cascade.records import Request, Token, Tool, ToolCall

ADD = Tool(
    name="add",
    parameters={"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
)
CUT = {"finish_reason": "length"}
AGE = {"type": "integer", "minimum": 0}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": AGE},
    "required": ["name"],
}


def request(**settings: Any) -> Request:
    return Request(text="x", **settings)


def call(name: str = "add", arguments: str = '{"a": 1, "b": 2}') -> Reply:
    return Reply("", tool_calls=(ToolCall(id="1", name=name, arguments=arguments),))


@pytest.mark.parametrize(
    ("asked", "reply", "said"),
    [
        (request(), Reply("anything"), None),
        (request(), call(), "none may be called"),
        (request(output_schema=PERSON), Reply(' {"name": "Ada", "age": 36}\n'), None),
        (request(output_schema=PERSON), Reply('{"name": "Ada"'), "it: no JSON"),
        (request(output_schema=PERSON), Reply('```json\n{"name": "Ada"}\n```'), "it: no JSON"),
        (request(output_schema=PERSON), Reply('{"name": "Ada", "age": NaN}'), "NaN is not JSON"),
        (request(output_schema=PERSON), Reply('{"age": 3}'), "$: 'name' is missing"),
        (request(output_schema=PERSON), Reply('{"name": "Ada", "age": -1}'), "$.age: violates minimum 0"),
        (request(output_schema=PERSON), Reply(" " * 1_000_001), "1000001 characters"),
        (request(output_schema=PERSON), Reply("[" * 100_000), "nested too deeply"),
        (request(tools=(ADD,)), Reply("I know it: 3"), None),
        (request(tools=(ADD,)), call(), None),
        (request(tools=(ADD,)), call(name="sub"), "a tool that there is not; known: add"),
        (request(tools=(ADD,)), call(name=""), "a tool that there is not"),
        (request(tools=(ADD,)), call(arguments='{"a": 1, "b":'), "the arguments of 'add': no JSON"),
        (request(tools=(ADD,)), call(arguments='{"a": 1, "b": "2"}'), "'add': $.b: violates type"),
        (request(tools=(ADD,)), call(arguments="[1, 2]"), 'violates type "object"'),
        (request(tools=(ADD,)), call(arguments=""), "'a' is missing"),
        (request(tools=(Tool(name="now"),)), call(name="now", arguments=""), None),
        (request(tools=(ADD,), tool_choice="none"), call(), "none may be called"),
        (request(tools=(ADD,), tool_choice="none"), Reply("3"), None),
        (request(tools=(ADD,), tool_choice="required"), Reply("3"), "does not call a tool"),
        (request(tools=(ADD, Tool(name="now")), tool_choice="now"), call(), "tool_choice asks for 'now'"),
        (request(tools=(ADD,), tool_choice="add"), Reply("3"), "does not call the tool 'add'"),
        (request(tools=(ADD,), output_schema=PERSON), call(), None),
        (request(output_schema=PERSON), Reply('{"name": "Ada"}', meta=CUT), "cut off at max_tokens"),
        (request(tools=(ADD,)), replace(call(), meta=CUT), "cut off at max_tokens"),
        (request(tools=(ADD,)), Reply("I know", meta=CUT), None),
        (request(), Reply("I know", meta=CUT), None),
        (request(tools=(ADD,), output_schema=PERSON), Reply("3"), 'violates type "object"'),
    ],
)  # fmt: skip
def test_an_answer_is_valid_or_the_reason_is_said(asked: Request, reply: Reply, said: str | None) -> None:
    found = problem(asked, reply)
    assert found is None if said is None else said in (found or "")
    assert measured(asked, reply) == ({} if said is None else {"invalid": found})


def spelled(*pieces: tuple[str, float]) -> Reply:
    tokens = tuple(Token(text=text, logprob=value) for text, value in pieces)
    return Reply("".join(text for text, _ in pieces), tokens=tokens)


def test_each_field_has_the_log_probabilities_of_its_own_tokens() -> None:
    reply = spelled(
        ('{"', -9.0), ("name", -9.0), ('": "', -0.1), ("Ad", -0.2), ('a", "', -0.3), ('tags":', -9.0),
        (' ["x', -1.0), ('", {}], ', -2.0), ('"age": 3', -4.0), ("6}", -5.0),
    )  # fmt: skip
    found = {entry["field"]: (entry["mean"], entry["min"]) for entry in fields(reply)}
    assert found == {
        "/name": (pytest.approx(-0.2), -0.3),
        "/tags/0": (pytest.approx(-1.5), -2.0),
        "/tags/1": (-2.0, -2.0),
        "/age": (pytest.approx(-4.5), -5.0),
    }
    assert measured(request(output_schema={}), reply) == {"fields": fields(reply)}
    assert measured(request(tools=(ADD,)), reply) == {}


@pytest.mark.parametrize(
    "reply",
    [
        Reply("{}"),
        Reply('{"a": 1}', tokens=(Token(text='{"a": 2}', logprob=-1.0),)),
        spelled(('{"a": 1', -1.0), ("}", math.nan)),
        spelled(('{"a": 1', -1.0), ("}", -math.inf)),
        spelled(('{"a": ', -1.0)),
        spelled(("[" * 5000, -1.0)),
    ],
)
def test_without_sound_tokens_there_are_no_fields(reply: Reply) -> None:
    assert fields(reply) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON, cuts=st.lists(st.integers(0, 200), max_size=30), data=st.data())
def test_every_scalar_of_any_json_is_a_field(value: Any, cuts: list[int], data: st.DataObject) -> None:
    text = json.dumps(value, indent=data.draw(st.sampled_from([None, 1])))
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(edges)]
    found = fields(spelled(*((piece, -1.0) for piece in pieces)))

    def leaves(inner: Any) -> int:
        if isinstance(inner, dict | list) and inner:
            return sum(map(leaves, inner.values() if isinstance(inner, dict) else inner))
        return 1

    assert len(found) == min(MAX_FIELDS, leaves(value))
    assert all(entry["mean"] == entry["min"] == -1.0 for entry in found)


def test_answers_are_compared_by_value() -> None:
    assert canonical_json(Reply('{"a": 1, "b": 2}')) == canonical_json(Reply('{"b":2,"a":1}'))
    assert canonical_json(call()) == canonical_json(call(arguments='{"b": 2, "a": 1}'))
    assert canonical_json(call()) != canonical_json(call(name="sub"))
    assert canonical_json(Reply("Paris")) is None
    assert canonical_json(Reply("{broken")) is None
    fenced, plain = canonical_json(Reply('```json\n{"a": 2.0}\n```')), canonical_json(Reply('{"a": 2}'))
    assert fenced == plain
