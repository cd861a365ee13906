"""JSON Schema → GBNF: what is refused, and that reading a schema never fails otherwise.

That generated texts satisfy their schema is tested with llama.cpp in tests/engine/test_grammar.py.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import ConfigError
from cascade.formats.json_grammar import schema_grammar
from cascade.formats.number_grammar import integers


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, "#: False is not a schema that an answer can satisfy"),
        (3, "#: 3 is not a schema"),
        ({"type": "strng"}, "type 'strng' is unknown; known: object"),
        ({"type": []}, "is unknown"),
        (
            {"type": "string", "pattern": "^a$"},
            "'pattern' is not supported; leave it out and check the answer",
        ),
        ({"type": "integer", "multipleOf": 2}, "'multipleOf' is not supported"),
        ({"type": "object", "patternProperties": {}}, "'patternProperties' is not supported"),
        ({"type": "object", "minProperties": 1}, "'minProperties' is not supported"),
        ({"not": {"type": "null"}}, "'not' is not supported"),
        ({"if": {}, "then": {}}, "'if' is not supported"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems' is not supported"),
        ({"type": "array", "contains": {}}, "'contains' is not supported"),
        ({"type": "array", "items": [{}]}, "'items' one schema"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "maxItems 2 is below minItems 3"),
        ({"type": "array", "minItems": 2, "items": False}, "minItems 2 is more than 'prefixItems' has"),
        (
            {"type": "string", "maxLength": 5000},
            r"maxLength is 5000; a grammar can count 0 … 2000; leave it out",
        ),
        ({"type": "string", "minLength": "3"}, "minLength is '3'"),
        ({"type": "number", "minimum": 0.5}, "minimum 0.5 is not supported; give a whole number"),
        ({"type": "integer", "minimum": 10**20}, "minimum 100000000000000000000 is not supported"),
        ({"type": "integer", "minimum": 5, "exclusiveMaximum": 5}, "no integer is between 5 and 5"),
        ({"enum": []}, "'enum' must be a list of at least one value"),
        ({"enum": ["a"], "type": "integer"}, "no value of 'enum' is of type 'integer'"),
        ({"enum": ["a"], "minLength": 2}, "'enum' beside 'minLength' is not supported; merge them"),
        ({"anyOf": []}, "'anyOf' must be a list of at least one schema"),
        ({"anyOf": [{}], "required": ["a"]}, "'anyOf' beside 'required' is not supported"),
        ({"allOf": [{}, {}]}, "'allOf' of several schemas is not supported"),
        (
            {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            "alternatives 0 and 1 may both hold; use 'anyOf'",
        ),
        ({"oneOf": [{"type": "object"}, {"type": "object"}]}, "may both hold"),
        ({"$ref": "https://example.com/a.json"}, "is not within this schema; expected '#/…'"),
        ({"$ref": "#/$defs/none"}, "'#/\\$defs/none' leads nowhere"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "grammar never ends"),
        ({"$ref": "#"}, "grammar never ends"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "begins with itself"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "never ends: its rule 'root' always leads to itself",
        ),
        ({"required": ["a"], "additionalProperties": False}, "'a' is required and not allowed"),
        ({"properties": {"a": {"type": "x"}}}, "#/properties/a: type 'x' is unknown"),
        ({"const": float("nan")}, "is not a JSON value"),
        ({"const": "\ud800"}, "not valid Unicode"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schema_grammar(schema)


def test_a_schema_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConfigError, match="more than 64 levels deep"):
        schema_grammar(schema)


def test_annotations_and_words_of_other_types_change_nothing() -> None:
    plain = schema_grammar({"type": "string"})
    said = {"type": "string", "title": "T", "description": "D", "default": 1, "format": "email", "x-order": 1}
    assert schema_grammar(said | {"minimum": 3, "examples": [1]}) == plain


WORDS = st.sampled_from([
    "type", "properties", "required", "items", "prefixItems", "enum", "const", "anyOf", "oneOf", "allOf",
    "$ref", "$defs", "minimum", "exclusiveMaximum", "minLength", "maxItems", "additionalProperties",
    "format", "a", "#/a", "object", "array", "string", "#", "date",
])  # fmt: skip
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(JUNK)
def test_any_json_is_a_grammar_or_a_config_error(schema: Any) -> None:
    with contextlib.suppress(ConfigError):
        assert schema_grammar(schema).startswith("root ::= ")


def matches(alternatives: str, text: str) -> bool:
    """Match the small part of GBNF that numbers use, as a regular expression."""
    parts = re.sub(r'"([^"]*)"', lambda m: re.escape(m[1]), alternatives)
    return re.fullmatch("|".join(part.replace(" ", "") for part in parts.split(" | ")), text) is not None


@given(st.integers(-2000, 2000), st.integers(0, 2000), st.integers(-5000, 5000))
def test_bounded_integers_are_exactly_those(low: int, width: int, value: int) -> None:
    grammar = integers(low, low + width)
    for number in (value, low, low + width, low - 1, low + width + 1):
        if number or low <= 0:
            assert matches(grammar, str(number)) == (low <= number <= low + width)
