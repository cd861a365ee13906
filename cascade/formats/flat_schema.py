"""JSON Schemas of flat objects whose values are closed or copied from a text: which field is which.

A closed value is one of an enum, or a boolean. A copied value stands in the text: a number, a date, or words.
Everything else (objects, lists, alternatives) is refused with its path, because no copied value could be
promised to satisfy it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from cascade.errors import ConfigError
from cascade.formats.json_schema import ANNOTATIONS, MAX_REFERENCES, find
from cascade.formats.schemas import schema_problem, unchecked_patterns, value_problem

MAX_FIELDS = 64
_ROOT_WORDS = ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}
_NUMBER_WORDS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_TEXT_WORDS = frozenset(("minLength", "maxLength", "pattern"))
_UNCOPIED_FORMATS = ("date-time", "time", "duration")
_NULL = {"type": "null"}


class FieldKind(StrEnum):
    """Where the values of a field come from."""

    CLOSED = "closed"
    NUMBER = "number"
    INTEGER = "integer"
    DATE = "date"
    SPAN = "span"


@dataclass(frozen=True, slots=True)
class Field:
    """One property of a flat schema.

    Attributes:
        name: its name.
        kind: where its values come from.
        schema: what a value must satisfy: references followed, without `null`.
        required: whether an answer must have it.
        nullable: whether it may be null.
        values: of a closed field: the values that it can have, without null.
    """

    name: str
    kind: FieldKind
    schema: dict[str, Any]
    required: bool
    nullable: bool
    values: tuple[Any, ...] = ()

    @property
    def optional(self) -> bool:
        """Whether there may be no value: null, or no such property."""
        return self.nullable or not self.required

    @property
    def bounded(self) -> bool:
        """Whether a copied value of its kind may violate its schema."""
        return any(word in self.schema for word in _NUMBER_WORDS | _TEXT_WORDS)

    def takes(self, value: object) -> bool:
        """Return whether `value`, which is not null, satisfies the field's schema."""
        return value_problem(self.schema, value) is None


def flat_fields(schema: object) -> tuple[Field, ...]:
    """Return the fields of a flat schema, in its order.

    Raises:
        ConfigError: it is no JSON Schema, or holds something that is neither closed nor copied; the text
            names the path in the schema, and the fix.
    """
    problem = schema_problem(schema)
    if problem is not None or not isinstance(schema, dict):
        raise ConfigError(f"the schema {problem}")
    if schema.get("type", "object") != "object":
        _fail("#/type", f"is {schema['type']!r:.60}; expected 'object', with one property for each field")
    _only(schema, _ROOT_WORDS, "#", "an object of closed and copied values")
    properties = schema.get("properties") or {}
    if not 0 < len(properties) <= MAX_FIELDS:
        _fail("#/properties", f"has {len(properties)} fields; expected 1 to {MAX_FIELDS}")
    required = schema.get("required", [])
    for name in required:
        if name not in properties:
            _fail("#/required", f"names {name!r:.60}, which is no property; add it, or leave it out")
    return tuple(
        _field(schema, name, inner, _pointer(name), name in required) for name, inner in properties.items()
    )


def assembled(fields: tuple[Field, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that has these values, None being no value: null where that may be, else left out."""
    pairs = ((field, values[field.name]) for field in fields)
    return {field.name: value for field, value in pairs if value is not None or field.nullable}


def _field(root: dict[str, Any], name: str, given: Any, at: str, required: bool) -> Field:
    schema, nullable = _without_null(root, given, at)
    if "enum" in schema or "const" in schema:
        return _closed(name, schema, at, required, nullable)
    kind = schema.get("type")
    if kind == "boolean":
        _only(schema, ANNOTATIONS | {"type"}, at, "a boolean")
        return Field(name, FieldKind.CLOSED, schema, required, nullable, (False, True))
    if kind in ("number", "integer"):
        _only(schema, ANNOTATIONS | _NUMBER_WORDS | {"type"}, at, "a number")
        return Field(name, FieldKind(kind), schema, required, nullable)
    if kind == "string":
        return Field(name, _text_kind(schema, at), schema, required, nullable)
    if kind in ("object", "array"):
        _fail(at, f"is an {kind}; only flat fields are learnt: give its parts as fields of their own")
    why = "has no type" if kind is None else f"has the type {kind!r:.60}"
    return _fail(at, f"{why}; give one of boolean, integer, number, string (and null), or an enum")


def _closed(name: str, schema: dict[str, Any], at: str, required: bool, nullable: bool) -> Field:
    given = schema["enum"] if "enum" in schema else [schema["const"]]
    for value in given:
        if isinstance(value, list | dict):
            _fail(f"{at}/enum", f"has {value!r:.60}; expected texts, numbers, booleans or null")
    values = tuple(value for value in given if value is not None and value_problem(schema, value) is None)
    if not values:
        _fail(at, "has no value that satisfies it; give the values that the field can have")
    nullable = nullable or (None in given and value_problem(schema, None) is None)
    own = {**schema, "enum": list(values)}
    return Field(name, FieldKind.CLOSED, own, required, nullable, values)


def _text_kind(schema: dict[str, Any], at: str) -> FieldKind:
    _only(schema, ANNOTATIONS | _TEXT_WORDS | {"type"}, at, "words of the text")
    form = schema.get("format")
    if form in _UNCOPIED_FORMATS:
        fix = "use 'date', or leave the format out to copy the words as they stand"
        _fail(f"{at}/format", f"is {form!r}, which cannot be copied; {fix}")
    if unchecked_patterns(schema):
        fix = "write it without look-around and back-references, or leave it out"
        _fail(f"{at}/pattern", f"is {schema['pattern']!r:.80}, which cannot be checked in linear time; {fix}")
    return FieldKind.DATE if form == "date" else FieldKind.SPAN


def _without_null(root: dict[str, Any], given: Any, at: str) -> tuple[dict[str, Any], bool]:
    """Return a field's schema with its references followed and null taken out, and whether null was in it."""
    schema, nullable = given, False
    for _ in range(MAX_REFERENCES):
        if not isinstance(schema, dict):
            _fail(at, f"is {json.dumps(schema)}; expected an object that says what the field is")
        if "$ref" in schema:
            _only(schema, ANNOTATIONS | {"$ref"}, at, "a reference")
            schema = find(root, schema["$ref"], at)
        elif word := next((word for word in ("anyOf", "oneOf") if word in schema), None):
            _only(schema, ANNOTATIONS | {word}, at, "a value or null")
            others = [part for part in schema[word] if part != _NULL]
            if len(others) != 1 or len(others) == len(schema[word]):
                _fail(f"{at}/{word}", "has alternatives; only one schema and {'type': 'null'} are learnt")
            schema, nullable = others[0], True
        else:
            break
    else:
        _fail(at, "refers to itself; give a type")
    kinds = schema.get("type")
    if isinstance(kinds, list):
        others = [kind for kind in kinds if kind != "null"]
        nullable = nullable or len(others) < len(kinds)
        schema = {**schema, "type": others[0] if len(others) == 1 else others}
    return schema, nullable


def _only(schema: Mapping[str, Any], known: frozenset[str], at: str, what: str) -> None:
    for word in schema:
        if word not in known:
            _fail(f"{at}/{word}", f"is not learnt for {what}; leave {word} out")


def _pointer(name: str) -> str:
    return "#/properties/" + name.replace("~", "~0").replace("/", "~1")


def _fail(at: str, why: str) -> NoReturn:
    raise ConfigError(f"the schema at {at:.120} {why}")
