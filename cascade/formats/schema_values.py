"""Does a value satisfy a JSON Schema? In a bounded number of steps, and without raising.

`subschemas.parts_of` must have taken the schema, so every keyword has a value of its kind. Keywords that are
not known here are annotations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sized
from fractions import Fraction
from typing import Any, NamedTuple

from cascade.formats.patterns import Pattern, compiled
from cascade.formats.subschemas import Parts, is_number

MAX_STEPS = 150_000  # keywords that are evaluated, and names, values and pieces of text that they look at
MAX_LEVELS = 150  # subschemas within each other, references followed included

Path = tuple[str | int, ...]


class Violation(NamedTuple):
    """The first keyword that a value violates: where in the value, and with which value of its own."""

    path: Path
    keyword: str
    expected: Any
    value: Any
    schema: Any


class TooLongError(Exception):
    """The check took more steps, or went deeper, than it may; the text says which."""


class Steps:
    """What is left of the steps of one or several checks."""

    def __init__(self, most: int = MAX_STEPS) -> None:
        self.most = self.left = most

    def take(self, count: int) -> None:
        """Take steps.

        Raises:
            TooLongError: none are left.
        """
        self.left -= count
        if self.left < 0:
            raise TooLongError(f"it takes more than {self.most} steps to check it against the schema")


class Check:
    """Checks values against a schema and its parts."""

    def __init__(self, parts: Parts, steps: Steps) -> None:
        self._parts, self._steps = parts, steps
        self._level = 0

    def violation(self, schema: Any, value: Any, path: Path = ()) -> Violation | None:
        """Return the first violation of `schema` by `value`, which is at `path`; None if it satisfies it.

        Raises:
            TooLongError: see `MAX_STEPS` and `MAX_LEVELS`.
        """
        if schema is True:
            return None
        if schema is False:
            return Violation(path, "", False, value, schema)
        self._level += 1
        if self._level > MAX_LEVELS:
            raise TooLongError("it is nested too deeply, or the schema refers to itself without an end")
        self._steps.take(1 + len(schema))
        for keyword, expected in schema.items():
            check = _KEYWORDS.get(keyword)
            if check is None:
                continue
            for found in check(self, expected, value, schema, path):
                # A keyword that only holds or does not says True; one that looks inside says where and what.
                self._level -= 1
                return Violation(path, keyword, expected, value, schema) if found is True else found
        self._level -= 1
        return None

    def holds(self, schema: Any, value: Any) -> bool:
        """Return whether `value` satisfies `schema`."""
        return self.violation(schema, value) is None

    def target(self, reference: str) -> Any:
        """Return the subschema that a reference leads to."""
        return self._parts.target(reference)

    def take(self, count: int) -> None:
        """Count steps."""
        self._steps.take(count)

    def key(self, value: Any) -> Any:
        """Return what JSON values that are equal to `value` share; see `json_key`."""
        return json_key(value, self._steps.take)

    def options(self, values: list[Any]) -> frozenset[Any]:
        """Return the keys of an enum, which are made once."""
        known = self._parts.options
        if id(values) not in known:
            known[id(values)] = frozenset(json_key(value, lambda _: None) for value in values)
        return known[id(values)]

    def matches(self, pattern: str, text: str) -> bool:
        """Return whether `pattern` is found in `text`; what nobody can check here holds."""
        known = compiled(pattern)
        if not isinstance(known, Pattern):
            return True
        self._steps.take(known.cost(text))
        return known.matches(text)


def json_key(value: Any, take: Callable[[int], None]) -> Any:
    """Return what JSON values that are equal to `value` share: 1 equals 1.0, but not true; `take` counts."""
    take(1)
    if isinstance(value, list):
        return ("a", tuple(json_key(item, take) for item in value))
    if isinstance(value, dict):
        return ("o", frozenset((name, json_key(inner, take)) for name, inner in value.items()))
    return (isinstance(value, bool), value)


Found = Iterator[Any]
Keyword = Callable[[Check, Any, Any, Any, Path], Found]


def _no(wrong: bool) -> Found:
    if wrong:
        yield True


def _inner(check: Check, schema: Any, value: Any, path: Path) -> Found:
    found = check.violation(schema, value, path)
    if found is not None:
        yield found


def has_type(value: Any, kind: str) -> bool:
    """Return whether the JSON value `value` is of the JSON Schema type `kind`."""
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, float):
        return kind == "number" or (kind == "integer" and value.is_integer())
    kinds: dict[type, tuple[str, ...]] = {
        dict: ("object",), list: ("array",), str: ("string",), int: ("number", "integer"),
        type(None): ("null",),
    }  # fmt: skip
    return kind in kinds.get(type(value), ())


def _type(check: Check, wanted: Any, value: Any, schema: Any, path: Path) -> Found:
    kinds = wanted if isinstance(wanted, list) else [wanted]
    yield from _no(not any(has_type(value, kind) for kind in kinds))


def _enum(check: Check, values: Any, value: Any, schema: Any, path: Path) -> Found:
    yield from _no(check.key(value) not in check.options(values))


def _const(check: Check, wanted: Any, value: Any, schema: Any, path: Path) -> Found:
    yield from _no(check.key(value) != check.key(wanted))


def _bound(wrong: Callable[[Any, Any], bool]) -> Keyword:
    def bound(check: Check, limit: Any, value: Any, schema: Any, path: Path) -> Found:
        yield from _no(is_number(value) and wrong(value, limit))

    return bound


def _size(kind: type[Sized], wrong: Callable[[int, Any], bool]) -> Keyword:
    def size(check: Check, limit: Any, value: Any, schema: Any, path: Path) -> Found:
        yield from _no(isinstance(value, kind) and wrong(len(value), limit))

    return size


def _multiple(check: Check, unit: Any, value: Any, schema: Any, path: Path) -> Found:
    if is_number(value):  # in decimals, as they are written: 0.3 is a multiple of 0.1
        finite = isinstance(value, int) or math.isfinite(value)  # 1e999 is JSON, and infinite
        yield from _no(not finite or (Fraction(repr(value)) / Fraction(repr(unit))).denominator != 1)


def _pattern(check: Check, pattern: Any, value: Any, schema: Any, path: Path) -> Found:
    yield from _no(isinstance(value, str) and not check.matches(pattern, value))


def _required(check: Check, names: Any, value: Any, schema: Any, path: Path) -> Found:
    if isinstance(value, dict):
        check.take(len(names))
        yield from _no(any(name not in value for name in names))


def _properties(check: Check, properties: Any, value: Any, schema: Any, path: Path) -> Found:
    if isinstance(value, dict):
        check.take(min(len(value), len(properties)))
        names = properties if len(properties) <= len(value) else value
        for name in names:
            if name in value and name in properties:
                yield from _inner(check, properties[name], value[name], (*path, name))


def _pattern_properties(check: Check, patterns: Any, value: Any, schema: Any, path: Path) -> Found:
    if isinstance(value, dict):
        for pattern, inner in patterns.items():
            for name in value:
                if check.matches(pattern, name):
                    yield from _inner(check, inner, value[name], (*path, name))


def _additional_properties(check: Check, inner: Any, value: Any, schema: Any, path: Path) -> Found:
    if not isinstance(value, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    check.take(len(value))
    for name in value:
        if name in named or any(check.matches(pattern, name) for pattern in patterns):
            continue
        if inner is False:
            yield True
        yield from _inner(check, inner, value[name], (*path, name))


def _property_names(check: Check, inner: Any, value: Any, schema: Any, path: Path) -> Found:
    if isinstance(value, dict):
        for name in value:
            yield from _inner(check, inner, name, path)


def _items(check: Check, items: Any, value: Any, schema: Any, path: Path) -> Found:
    if not isinstance(value, list):
        return
    if isinstance(items, list):  # of drafts before 2020-12
        yield from _prefix(check, items, value, schema, path)
        return
    start = len(schema.get("prefixItems", ()))
    for index in range(start, len(value)):
        yield from _inner(check, items, value[index], (*path, index))


def _prefix(check: Check, items: Any, value: Any, schema: Any, path: Path) -> Found:
    if isinstance(value, list):
        for index, (inner, item) in enumerate(zip(items, value, strict=False)):
            yield from _inner(check, inner, item, (*path, index))


def _additional_items(check: Check, inner: Any, value: Any, schema: Any, path: Path) -> Found:
    items = schema.get("items")
    if isinstance(value, list) and isinstance(items, list):
        for index in range(len(items), len(value)):
            yield from _inner(check, inner, value[index], (*path, index))


def _contains(check: Check, inner: Any, value: Any, schema: Any, path: Path) -> Found:
    if isinstance(value, list):
        count = sum(check.holds(inner, item) for item in value)
        most = schema.get("maxContains")
        yield from _no(count < schema.get("minContains", 1) or (most is not None and count > most))


def _unique(check: Check, unique: Any, value: Any, schema: Any, path: Path) -> Found:
    if unique and isinstance(value, list):
        yield from _no(len({check.key(item) for item in value}) < len(value))


def _all_of(check: Check, schemas: Any, value: Any, schema: Any, path: Path) -> Found:
    for inner in schemas:
        yield from _inner(check, inner, value, path)


def _any_of(check: Check, schemas: Any, value: Any, schema: Any, path: Path) -> Found:
    yield from _no(not any(check.holds(inner, value) for inner in schemas))


def _one_of(check: Check, schemas: Any, value: Any, schema: Any, path: Path) -> Found:
    yield from _no(sum(check.holds(inner, value) for inner in schemas) != 1)


def _not(check: Check, inner: Any, value: Any, schema: Any, path: Path) -> Found:
    yield from _no(check.holds(inner, value))


def _if(check: Check, inner: Any, value: Any, schema: Any, path: Path) -> Found:
    then = schema.get("then" if check.holds(inner, value) else "else", True)
    yield from _inner(check, then, value, path)


def _ref(check: Check, reference: Any, value: Any, schema: Any, path: Path) -> Found:
    yield from _inner(check, check.target(reference), value, path)


def _dependent(check: Check, dependents: Mapping[str, Any], value: Any, schema: Any, path: Path) -> Found:
    if not isinstance(value, dict):
        return
    check.take(len(dependents))
    for name, needed in dependents.items():
        if name not in value:
            continue
        if isinstance(needed, list):
            check.take(len(needed))
            yield from _no(any(other not in value for other in needed))
        else:
            yield from _inner(check, needed, value, path)


_KEYWORDS: dict[str, Keyword] = {
    "type": _type, "enum": _enum, "const": _const, "multipleOf": _multiple, "pattern": _pattern,
    "minimum": _bound(lambda value, limit: value < limit),
    "maximum": _bound(lambda value, limit: value > limit),
    "exclusiveMinimum": _bound(lambda value, limit: value <= limit),
    "exclusiveMaximum": _bound(lambda value, limit: value >= limit),
    "minLength": _size(str, lambda size, limit: size < limit),
    "maxLength": _size(str, lambda size, limit: size > limit),
    "minItems": _size(list, lambda size, limit: size < limit),
    "maxItems": _size(list, lambda size, limit: size > limit),
    "minProperties": _size(dict, lambda size, limit: size < limit),
    "maxProperties": _size(dict, lambda size, limit: size > limit),
    "required": _required, "properties": _properties, "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties, "propertyNames": _property_names, "items": _items,
    "prefixItems": _prefix, "additionalItems": _additional_items, "contains": _contains,
    "uniqueItems": _unique, "allOf": _all_of, "anyOf": _any_of, "oneOf": _one_of, "not": _not, "if": _if,
    "$ref": _ref, "dependentRequired": _dependent, "dependentSchemas": _dependent, "dependencies": _dependent,
}  # fmt: skip


def described(violation: Violation, schema: Mapping[str, Any]) -> str:
    """Return where and why a value violates `schema`; names that the schema does not have are left out."""
    names = json.dumps(schema)
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in violation.path)
    known = (step if step[0] == "[" or json.dumps(step[1:]) in names else ".*" for step in steps)
    location, keyword, expected = "$" + "".join(known), violation.keyword, violation.expected
    if keyword == "required":
        missing = next(name for name in expected if name not in violation.value)
        return f"{location}: {missing!r} is missing"
    if keyword == "additionalProperties":
        known_names = ", ".join(violation.schema.get("properties", ()))[:200]
        return f"{location}: has a property that is not expected; known: {known_names}"
    if keyword == "":
        return f"{location}: nothing may be here"
    return f"{location}: violates {keyword} {json.dumps(expected)[:100]}"
