"""Reading JSON Schemas that may be hostile; every error names the location within the schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from cascade.errors import ConfigError
from cascade.formats.gbnf_parser import MAX_REPEATS
from cascade.formats.number_grammar import LARGEST, LARGEST_REAL

MAX_REFERENCES = 64
MAX_EXCLUSIVE = 300  # alternatives of a oneOf, each of which is compared with each other
ANNOTATIONS: Final = frozenset((
    "$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "title", "description", "default",
    "examples", "deprecated", "readOnly", "writeOnly", "discriminator", "contentEncoding", "contentMediaType",
    "contentSchema", "format",
))  # fmt: skip
KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems", "uniqueItems")),
    "string": frozenset(("minLength", "maxLength")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
    "boolean": frozenset(),
    "null": frozenset(),
}
FORMATS: Final = {
    "date": '"\\"" day "\\""',
    "time": '"\\"" clock "\\""',
    "date-time": '"\\"" day "T" clock "\\""',
    "uuid": '"\\"" ' + ' "-" '.join(f"[0-9a-f]{{{size}}}" for size in (8, 4, 4, 4, 12)) + ' "\\""',
}


class Bounds(NamedTuple):
    """An interval; `above` excludes `low`, and `below` excludes `high`."""

    low: int
    high: int
    above: bool
    below: bool


def number_bounds(kind: str, schema: Mapping[str, Any], at: str) -> Bounds | None:
    """Return the bounds of a number or integer, or None; an integer's bounds are always inclusive."""
    words = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    bounds = {word: schema[word] for word in words if word in schema}
    if not bounds:
        return None
    largest = LARGEST if kind == "integer" else LARGEST_REAL
    for word, bound in bounds.items():
        if not has_type(bound, "integer") or abs(bound) > largest:
            fail(at, f"{word} {bound!r:.40} is not supported; give a whole number within ±{largest}")
    lows = [(int(bounds[word]), word == words[1]) for word in words[:2] if word in bounds]
    highs = [(int(bounds[word]), word == words[2]) for word in words[2:] if word in bounds]
    low, above = max(lows, default=(-largest, False))
    high, to = min(highs, default=(largest, True))
    result = Bounds(low, high, above, not to)
    if kind == "integer":
        result = Bounds(low + above, high if to else high - 1, above=False, below=False)
    if result.low > result.high or (result.low == result.high and (result.above or result.below)):
        fail(at, f"no {kind} is between {low} and {high}")
    return result


def types_of(schema: dict[str, Any], at: str) -> list[str]:
    """Return the types that `schema` allows; without `type`, those that its keywords apply to."""
    given = schema.get("type")
    if given is None:
        implied = [
            kind for kind, words in KEYWORDS.items() if kind != "integer" and any(w in schema for w in words)
        ]
        if isinstance(schema.get("format"), str) and schema["format"] in FORMATS:
            implied = ["string"]
        return implied or [kind for kind in KEYWORDS if kind != "integer"]
    types = given if isinstance(given, list) else [given]
    if not types or not all(isinstance(kind, str) and kind in KEYWORDS for kind in types):
        fail(at, f"type {given!r:.60} is unknown; known: {', '.join(KEYWORDS)}")
    return list(dict.fromkeys(types))


def length_bounds(schema: dict[str, Any], low_word: str, high_word: str, at: str) -> tuple[int, int | None]:
    """Return the values of the keywords `low_word` and `high_word`, which count characters or items."""
    low, high = schema.get(low_word, 0), schema.get(high_word)
    for word, value in ((low_word, low), (high_word, high)):
        if value is None and word == high_word:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_REPEATS:
            fail(at, f"{word} is {value!r:.40}; a grammar can count 0 … {MAX_REPEATS}; leave it out")
    if high is not None and high < low:
        fail(at, f"{high_word} {high} is below {low_word} {low}")
    return low, high


def has_type(value: object, kind: str) -> bool:
    """Whether the JSON value `value` is of the JSON Schema type `kind`."""
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "null": type(None),
    }
    return isinstance(value, types[kind])


def _view(root: object, schema: object, at: str) -> tuple[set[str], dict[str, set[str]]]:
    """Return the types of a schema, and for an object the possible values of its required properties."""
    for _ in range(MAX_REFERENCES):
        if not (isinstance(schema, dict) and "$ref" in schema):
            break
        schema = find(root, schema["$ref"], at)
    if not isinstance(schema, dict):
        return set(KEYWORDS), {}
    values = _listed(schema)
    if values is not None:
        types = {kind for kind in KEYWORDS if any(has_type(value, kind) for value in values)}
    elif "type" not in schema or any(word in schema for word in ("anyOf", "oneOf", "allOf")):
        types = set(KEYWORDS)
    else:
        types = set(types_of(schema, at))
    types |= {"integer", "number"} if types & {"integer", "number"} else set()
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return types, {}
    tags = {name: _listed(part) for name, part in properties.items() if name in required}
    return types, {name: {json_text(v, at) for v in own} for name, own in tags.items() if own is not None}


def _listed(schema: object) -> list[Any] | None:
    """Return the values of `const` or `enum`, if a schema has them."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def find(root: object, reference: object, at: str) -> object:
    """Return what `reference` (`#/…`) points to in `root`."""
    part = root
    for step in str(reference).removeprefix("#").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and key in part:
            part = part[key]
        elif isinstance(part, list) and key.isdigit() and int(key) < len(part):
            part = part[int(key)]
        else:
            fail(at, f"$ref {reference!r:.80} leads nowhere")
    return part


def json_text(value: object, at: str) -> str:
    """Return `value` as JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        fail(at, f"{value!r:.60} is not a JSON value: {error}")


def exclusive(root: object, parts: Sequence[Any], at: str) -> None:
    """Reject a `oneOf` of which a text might satisfy two alternatives."""
    if len(parts) > MAX_EXCLUSIVE:
        fail(at, f"'oneOf' has {len(parts)} alternatives; at most {MAX_EXCLUSIVE} are compared; use 'anyOf'")
    views = [_view(root, part, at) for part in parts]
    for index, (types, tags) in enumerate(views):
        for other, (types_before, tags_before) in enumerate(views[:index]):
            both = types & types_before
            differ = any(not tags[tag] & tags_before[tag] for tag in tags.keys() & tags_before.keys())
            if both - {"object"} or (both and not differ):
                fail(at, f"'oneOf' alternatives {other} and {index} may both hold; use 'anyOf'")


def fail(at: str, why: str) -> NoReturn:
    """Raise ConfigError for the part of the schema at `at`."""
    raise ConfigError(f"output schema {at}: {why}")
