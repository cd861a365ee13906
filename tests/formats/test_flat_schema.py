"""Which schemas are flat, and what is refused with its path."""

from __future__ import annotations

from typing import Any

import pytest

from cascade.errors import ConfigError
from cascade.formats.flat_schema import FieldKind, assembled, flat_fields


def one(field: Any, **more: Any) -> Any:
    return {"type": "object", "properties": {"a": field}, **more}


@pytest.mark.parametrize(
    ("schema", "kind", "optional", "values"),
    [
        ({"enum": ["x", None, 3]}, FieldKind.CLOSED, True, ("x", 3)),
        ({"const": "x"}, FieldKind.CLOSED, False, ("x",)),
        ({"type": "string", "enum": ["x", 3, "y"]}, FieldKind.CLOSED, False, ("x", "y")),
        ({"type": "boolean"}, FieldKind.CLOSED, False, (False, True)),
        ({"type": ["number", "null"], "minimum": 0}, FieldKind.NUMBER, True, ()),
        ({"anyOf": [{"$ref": "#/$defs/day"}, {"type": "null"}]}, FieldKind.DATE, True, ()),
        ({"type": "string", "pattern": "^[A-Z]+$", "maxLength": 9}, FieldKind.SPAN, False, ()),
        ({"type": "integer", "title": "Pieces"}, FieldKind.INTEGER, False, ()),
    ],
)
def test_fields_are_closed_or_copied(
    schema: Any, kind: FieldKind, optional: bool, values: tuple[Any, ...]
) -> None:
    days = {"day": {"type": "string", "format": "date"}}
    (field,) = flat_fields(one(schema, required=["a"], **{"$defs": days}))
    assert (field.kind, field.optional, field.values) == (kind, optional, values)


@pytest.mark.parametrize(
    ("schema", "path", "fix"),
    [
        (one({"type": "array"}), "#/properties/a ", "fields of their own"),
        (one({"type": "object"}), "#/properties/a ", "fields of their own"),
        (one({}), "#/properties/a ", "has no type"),
        (one(True), "#/properties/a ", "expected an object"),
        (one({"type": ["string", "number"]}), "#/properties/a ", "give one of"),
        (one({"allOf": [{}]}), "#/properties/a ", "has no type"),
        (one({"type": "string", "not": {}}), "#/properties/a/not", "leave not out"),
        (one({"type": "string", "pattern": "(?=a)b"}), "#/properties/a/pattern", "look-around"),
        (one({"type": "string", "format": "date-time"}), "#/properties/a/format", "use 'date'"),
        (one({"anyOf": [{"type": "string"}, {"type": "number"}]}), "#/properties/a/anyOf", "null"),
        (one({"$ref": "#/properties/a"}), "#/properties/a ", "itself"),
        (one({"enum": [[1]]}), "#/properties/a/enum", "expected texts"),
        (one({"type": "string", "enum": [1]}), "#/properties/a ", "no value"),
        (one({"type": "string"}, required=["b"]), "#/required", "leave it out"),
        (one({"type": "string"}, minProperties=1), "#/minProperties", "leave minProperties out"),
        ({"type": "object"}, "#/properties", "1 to 64"),
        ({"type": "array"}, "#/type", "expected 'object'"),
        ([], "the schema ", "expected an object"),
    ],
)
def test_what_is_not_flat_is_refused_with_its_path_and_the_fix(schema: Any, path: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flat_fields(schema)
    assert path in str(caught.value)
    assert fix in str(caught.value)


def test_no_value_is_null_where_that_may_be_and_left_out_elsewhere() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "string"}, "c": {"type": "number"}},
        "required": ["a", "c"],
    }
    values = {"a": None, "b": None, "c": 1}
    assert assembled(flat_fields(schema), values) == {"a": None, "c": 1}
