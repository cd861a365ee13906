"""Schemas and answers that mean harm: a schema is refused before any model is called, or judges any answer.

Where jsonschema can say, too, the verdict is the same.
"""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import jsonschema
import pytest
from fuzzing import fuzz

from cascade.confidence.validity import measured
from cascade.errors import ConfigError, RequestError
from cascade.formats.json_grammar import schema_grammar
from cascade.formats.schemas import parse_json, schema_problem, value_problem
from cascade.models.base import Reply
from cascade.records import ToolCall
from cascade.requests import build_request

ONE = ["not", "if", "then", "else", "contains", "propertyNames", "additionalProperties", "items",
       "additionalItems", "contentSchema"]  # fmt: skip
LISTS = ["allOf", "anyOf", "oneOf", "prefixItems", "items"]
NAMED = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"]
SIZES = ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains",
         "maxContains"]  # fmt: skip
BOUNDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]
TYPES = ["string", "number", "integer", "object", "array", "boolean", "null"]
OTHERS = ["$id", "$anchor", "$schema", "$dynamicRef", "$recursiveRef", "unevaluatedItems", "format", "title",
          "default", "id", "extends", "disallow", "nullable"]  # fmt: skip
PATTERNS = [
    "a",
    "^a*$",
    r"\d+",
    "^(?!x)a",
    "(",
    "[",
    r"(a)\1",
    r"\w{99}" * 9,
    "(?<=a)b",
    "^(?=a|b)(?!c)|d",
    "",
]
NAMES = ["a", "b", "", "a/b", "a~b", "$ref", "é", "items", "%61", "\ud800"]
REFERENCES = ["#", "#/", "#/$defs/a", "#/definitions/b", "#/properties/a", "#/title", "#/enum", "#/items/0",
              "#/$defs/a~1b", "#/$defs/%61", "http://127.0.0.1:9/x", "file:///etc/passwd", "other",
              "#x", "#/anyOf/0", "#/required", "##", "#/$defs/a/", ""]  # fmt: skip
SCALARS = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    1.0,
    0.1,
    0.3,
    1e308,
    5e-324,
    2**63,
    10**300,
    -0.0,
    "",
    "a",
    "é",
    "aa",
    "1",
]


def a_value(chance: random.Random, depth: int = 3) -> Any:
    kind = chance.random()
    if depth and kind < 0.15:
        return [a_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    if depth and kind < 0.35:
        return {chance.choice(NAMES): a_value(chance, depth - 1) for _ in range(chance.randrange(4))}
    return chance.choice(SCALARS)


def a_schema(chance: random.Random, depth: int = 4) -> Any:
    if depth == 0 or chance.random() < 0.08:
        return chance.choice([True, False, {}, {"type": chance.choice(TYPES)}])
    schema: dict[str, Any] = {}
    for _ in range(chance.randrange(1, 5)):
        schema |= _keyword(chance, depth)
    if chance.random() < 0.1:  # a value of the wrong kind
        schema[chance.choice([*ONE, *LISTS, *NAMED, *SIZES, *BOUNDS, "type", "required"])] = a_value(chance)
    return schema


def _keyword(chance: random.Random, depth: int) -> dict[str, Any]:
    inner = [a_schema(chance, depth - 1) for _ in range(chance.randrange(1, 3))]
    made: list[dict[str, Any]] = [
        {chance.choice(ONE): inner[0]},
        {chance.choice(LISTS): inner},
        {chance.choice(NAMED): {chance.choice(NAMES): each for each in inner}},
        {"properties": {chance.choice(NAMES[:2]): each for each in inner}},
        {chance.choice(SIZES): chance.choice([0, 1, 2, 1.0])},
        {chance.choice(BOUNDS): chance.choice([0, 1, 0.1, 0.01, 1e308, 5e-324, 10**300, 2])},
        {"type": chance.choice([*TYPES, TYPES[:3], ["null", "string"]])},
        {"enum": [a_value(chance) for _ in range(chance.randrange(1, 4))]},
        {"const": a_value(chance)},
        {"required": [chance.choice(NAMES[:3])]},
        {"dependentRequired": {"a": ["b"]}},
        {"uniqueItems": chance.choice([True, False])},
        {"pattern": chance.choice(PATTERNS)},
        {"$ref": chance.choice(REFERENCES)},
        {"$defs": {"a": inner[0], "a/b": inner[-1]}},
    ]  # fmt: skip
    if chance.random() < 0.02:
        return {chance.choice(OTHERS): chance.choice([*SCALARS, *REFERENCES, {}, inner[0]])}
    return chance.choice(made)


def an_input(chance: random.Random) -> dict[str, Any]:
    schema = a_schema(chance)
    texts = [json.dumps(a_value(chance)) for _ in range(5)]
    odd = ["1e999", "[" * 400 + "]" * 400, "{", "", "1" * 4400, '{"a": 1e999}', "-0", '{"a": "\\ud800"}']
    return {"schema": schema, "texts": [*texts, chance.choice(odd)]}


def refused_or_judges(given: dict[str, Any]) -> None:
    schema = given["schema"]
    with contextlib.suppress(ConfigError):  # of a graph file, where it may be any schema
        schema_grammar(schema)
    try:
        request = build_request("x", {"output_schema": schema})
    except RequestError:
        return
    tools = [{"name": "t", "parameters": schema}]
    asked = build_request("x", {"tools": tools}) if isinstance(schema, dict) else request
    for text in given["texts"]:
        said = measured(request, Reply(text))
        json.dumps(said)
        json.dumps(measured(asked, Reply("", tool_calls=(ToolCall(id="1", name="t", arguments=text),))))
        try:
            value = parse_json(text)
        except ValueError:
            assert said.get("invalid"), text
            continue
        _same_verdict(schema, value)


def _legacy(schema: Any) -> bool:
    """Whether jsonschema's draft 2020-12 reads it in another way, or in other arithmetic."""
    text = json.dumps(schema)
    words = (
        "additionalItems",
        "dependencies",
        "multipleOf",
        "attern",
        "$schema",
        "$anchor",
        '"items": [',
        "1e",
        "10000",
    )
    return any(word in text for word in words)


def _same_verdict(schema: Any, value: Any) -> None:
    ours = value_problem(schema, value)
    if _legacy(schema) or (ours is not None and ("steps" in ours or "deep" in ours)):
        return
    try:
        theirs = jsonschema.Draft202012Validator(schema).is_valid(value)
    except RecursionError:
        return
    assert (ours is None) == theirs, f"ours: {ours}; jsonschema: {theirs}; value {value!r:.200}"


@pytest.mark.parametrize(
    "examples", [400, pytest.param(15_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_schema_is_refused_or_judges_any_answer(examples: int) -> None:
    assert fuzz("schemas", an_input, refused_or_judges, examples=examples) >= examples


def test_the_fuzzer_is_no_strainer() -> None:
    """Enough of what it draws is accepted, refused, satisfied and violated."""
    chance = random.Random(1)
    drawn = [an_input(chance) for _ in range(300)]
    taken = [each for each in drawn if schema_problem(each["schema"]) is None]
    verdicts = [value_problem(each["schema"], json.loads(each["texts"][0])) is None for each in taken]
    assert 60 < len(taken) < 240
    assert 20 < sum(verdicts) < len(verdicts) - 20
