"""Is it a JSON Schema that is taken here? Its shape, its references, and its size, in time linear in it.

One dialect is read: draft 2020-12, and from earlier drafts `items` as a list, `additionalItems`,
`dependencies` and `definitions`. A schema refers only to its own parts: nothing has an address, so nothing
can be fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from cascade.formats.patterns import compiled, pattern_problem

MAX_DEPTH = 32  # levels of subschemas
MAX_SUBSCHEMAS = 5000
MAX_ENUM = 5000  # values of one enum
MAX_PATTERNS = 100
TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_DRAFTS = re.compile(r"https?://json-schema\.org/(draft-0[4-7]|draft/2019-09|draft/2020-12)/schema#?")
_ANCHOR = re.compile(r"[A-Za-z_][-A-Za-z0-9._]*")
# Keywords that give a schema an address, or whose evaluation is not bounded.
_REFUSED = frozenset((
    "$id", "$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor", "unevaluatedItems",
    "unevaluatedProperties",
))  # fmt: skip
_ONE = frozenset((
    "not", "if", "then", "else", "contains", "propertyNames", "additionalProperties", "additionalItems",
    "contentSchema",
))  # fmt: skip
_LIST = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_NAMED = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))


class UnsupportedError(Exception):
    """The schema is not taken; the text says why, and goes on from its name."""


@dataclass
class Parts:
    """The subschemas of a schema.

    Attributes:
        at: JSON Pointer, or `#` and an anchor's name → subschema.
        unchecked: pointers of patterns that no linear-time engine matches; answers are not held to them.
    """

    at: dict[str, Any] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    references: list[tuple[str, str]] = field(default_factory=list)
    patterns: int = 0
    options: dict[int, frozenset[Any]] = field(
        default_factory=dict
    )  # id of an enum's list → keys of its values

    def target(self, reference: str) -> Any:
        """Return the subschema that `reference` (`#…`) leads to.

        Raises:
            KeyError: there is none.
        """
        return self.at[unquote(reference)]


def parts_of(schema: Mapping[str, Any]) -> Parts:
    """Return the parts of a schema that is plain JSON.

    Raises:
        UnsupportedError: it is not a schema of the dialect, or passes a bound.
    """
    parts = Parts()
    declared = schema.get("$schema")
    if declared is not None and not (isinstance(declared, str) and _DRAFTS.fullmatch(declared)):
        _refuse(
            f"has $schema {declared!r:.80}, which is not known; schemas are read as draft 2020-12: remove it"
        )
    _Walk(parts).walk(schema, "#", 0)
    for pointer, reference in parts.references:
        if not reference.startswith("#"):
            _refuse(
                f"refers to {reference!r:.80} at {pointer}; only references into itself (#/…) are followed"
            )
        if unquote(reference) not in parts.at:
            _refuse(f"refers to {reference!r:.80}, which it does not have as a schema; add it under $defs")
    return parts


class _Walk:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def walk(self, schema: object, pointer: str, depth: int) -> None:
        """Check the subschema at `pointer` and those within it."""
        parts = self._parts
        if depth > MAX_DEPTH:
            _refuse(f"is nested deeper than {MAX_DEPTH} levels at {pointer[:80]}")
        if not isinstance(schema, dict | bool):
            _refuse(f"is no JSON Schema: {pointer:.80} is {schema!r:.40}; expected an object, true or false")
        self._name(pointer, schema)
        if len(parts.at) > MAX_SUBSCHEMAS:
            _refuse(f"has more than {MAX_SUBSCHEMAS} subschemas; make it smaller")
        if not isinstance(schema, dict):
            return
        for keyword, value in schema.items():
            at = f"{pointer}/{_escaped(keyword)}"
            if keyword in _REFUSED or (keyword == "$schema" and pointer != "#"):
                _refuse(f"has {at[:80]}, which is not supported; write the schema without {keyword}")
            shape = _SHAPES.get(keyword)
            expected = shape(value) if shape is not None else None
            if expected is not None:
                _refuse(f"is no JSON Schema: {at:.80} is {value!r:.40}; expected {expected}")
            self._keyword(keyword, value, pointer, at)
            for inner, where in _within(keyword, value, at):
                self.walk(inner, where, depth + 1)

    def _keyword(self, keyword: str, value: Any, pointer: str, at: str) -> None:
        if keyword == "$ref":
            self._parts.references.append((pointer, value))
        elif keyword == "$anchor":
            self._name(f"#{value}", None)
            self._parts.at[f"#{value}"] = self._parts.at[pointer]
        elif keyword in ("pattern", "patternProperties"):
            self._patterns([value] if keyword == "pattern" else value, at)

    def _name(self, pointer: str, schema: Any) -> None:
        if pointer in self._parts.at:
            _refuse(f"has {pointer:.80} twice")
        self._parts.at[pointer] = schema

    def _patterns(self, patterns: Iterable[str], at: str) -> None:
        for pattern in patterns:
            self._parts.patterns += 1
            if self._parts.patterns > MAX_PATTERNS:
                _refuse(f"has more than {MAX_PATTERNS} patterns; make it smaller")
            problem = pattern_problem(pattern)
            if problem is not None:
                _refuse(f"has the pattern {pattern!r:.80} at {at:.80}: {problem}")
            if compiled(pattern) is None:
                self._parts.unchecked.append(at)


def _refuse(why: str) -> None:
    raise UnsupportedError(why)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _within(keyword: str, value: Any, at: str) -> Iterator[tuple[Any, str]]:
    """Yield the subschemas that the value of a keyword holds, with their pointers."""
    if keyword in _ONE or (keyword == "items" and not isinstance(value, list)):
        yield value, at
    elif keyword in _LIST or keyword == "items":
        yield from ((inner, f"{at}/{index}") for index, inner in enumerate(value))
    elif keyword in _NAMED:
        yield from ((inner, f"{at}/{_escaped(name)}") for name, inner in value.items())
    elif keyword == "dependencies":
        named = ((inner, f"{at}/{_escaped(name)}") for name, inner in value.items())
        yield from ((inner, where) for inner, where in named if not isinstance(inner, list))


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_lists_of_names(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_names, value.values()))


def _is_dependencies(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_names(each) for each in value.values() if isinstance(each, list)
    )


def _is_type(value: object) -> bool:
    return isinstance(value, str) and value in TYPES


def _is_types(value: object) -> bool:
    several = isinstance(value, list) and bool(value) and all(map(_is_type, value))
    return several or _is_type(value)


def is_number(value: object) -> bool:
    """Return whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shape(holds: Callable[[Any], bool], expected: str) -> Callable[[Any], str | None]:
    return lambda value: None if holds(value) else expected


_object = _shape(lambda value: isinstance(value, dict), "an object")
_schemas = _shape(lambda value: isinstance(value, list) and bool(value), "a list of at least one schema")
_count = _shape(
    lambda value: is_number(value) and value >= 0 and value == int(value), "a whole number from 0 on"
)
_number = _shape(is_number, "a number")
_text = _shape(lambda value: isinstance(value, str), "a string")
_names = _shape(_is_names, "a list of names")
_SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
# Keyword → what is wrong with the kind of its value.
_SHAPES: dict[str, Callable[[Any], str | None]] = {
    **dict.fromkeys(_LIST, _schemas),
    **dict.fromkeys(_NAMED, _object),
    **dict.fromkeys((*_SIZES, "minContains", "maxContains"), _count),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _number),
    **dict.fromkeys(("$ref", "format", "title", "description", "$comment", "pattern"), _text),
    "required": _names,
    "dependentRequired": _shape(_is_lists_of_names, "lists of names by name"),
    "dependencies": _shape(_is_dependencies, "lists of names, or schemas, by name"),
    "type": _shape(_is_types, f"one or several of {', '.join(sorted(TYPES))}"),
    "enum": _shape(
        lambda value: isinstance(value, list) and 0 < len(value) <= MAX_ENUM,
        f"a list of 1 to {MAX_ENUM} values",
    ),
    "multipleOf": _shape(lambda value: is_number(value) and value > 0, "a number above 0"),
    "uniqueItems": _shape(lambda value: isinstance(value, bool), "true or false"),
    "$anchor": _shape(
        lambda value: isinstance(value, str) and _ANCHOR.fullmatch(value) is not None,
        "a name of letters, digits, -, . and _",
    ),
}
