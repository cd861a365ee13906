"""JSON Schemas that come with requests: are they supported, and does a value satisfy them? In bounded time.

Such a schema may be hostile. It is read as draft 2020-12 (see `subschemas`), nothing is ever fetched,
patterns are matched in linear time or not at all (see `patterns`), and a check stops after `MAX_STEPS` steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from cascade.formats.plain import json_problem
from cascade.formats.schema_values import MAX_STEPS, Check, Steps, TooLongError, described
from cascade.formats.subschemas import MAX_DEPTH, Parts, UnsupportedError, parts_of

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_STEPS",
    "SchemaSize",
    "Steps",
    "parse_json",
    "schema_problem",
    "schema_size",
    "unchecked_patterns",
    "value_problem",
]

MAX_BYTES = 100_000  # of one schema as JSON
_MAX_NESTING = 4 * MAX_DEPTH  # levels of lists and objects: keywords and their values, and data


def schema_problem(schema: object) -> str | None:
    """Return why `schema` is not supported, or None if it is a self-contained JSON Schema of bounded size."""
    if not isinstance(schema, dict):
        return f"is {type(schema).__name__}; expected an object, a JSON Schema"
    problem = json_problem(schema, max_bytes=MAX_BYTES, max_depth=_MAX_NESTING)
    if problem is not None:
        return problem
    text = json.dumps(schema)
    if len(text) > MAX_BYTES:
        return f"has {len(text)} bytes; a schema has at most {MAX_BYTES}; make it smaller"
    parts = _parts(text)
    return parts if isinstance(parts, str) else None


class SchemaSize(NamedTuple):
    """How large a supported schema is: bytes of JSON, subschemas, patterns."""

    bytes: int
    subschemas: int
    patterns: int


def schema_size(schema: Mapping[str, Any]) -> SchemaSize:
    """Return the size of a schema that `schema_problem` takes."""
    text = json.dumps(schema)
    parts = _parts(text)
    return (
        SchemaSize(len(text), 0, 0)
        if isinstance(parts, str)
        else SchemaSize(len(text), len(parts.at), parts.patterns)
    )


def unchecked_patterns(schema: Mapping[str, Any]) -> Sequence[str]:
    """Return pointers of the patterns of a supported schema that no answer is held to."""
    parts = _parts(json.dumps(schema))
    return () if isinstance(parts, str) else parts.unchecked


def value_problem(schema: Mapping[str, Any], value: object, steps: Steps | None = None) -> str | None:
    """Return where and why `value` does not satisfy `schema`, or None.

    The reason quotes the schema, never the value, because it is stored even in traces without texts. A schema
    that `schema_problem` does not take satisfies nothing.

    Args:
        schema: the JSON Schema.
        value: plain JSON.
        steps: what several checks may take together; default: `MAX_STEPS`.
    """
    parts = _parts(json.dumps(schema))
    if isinstance(parts, str):
        return f"the schema {parts}"
    root = parts.at["#"]
    try:
        found = Check(parts, steps or Steps()).violation(root, value)
    except TooLongError as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return None if found is None else described(found, root)


@lru_cache(maxsize=64)
def _parts(text: str) -> Parts | str:
    """Return the parts of a schema, or why it is not supported; applications repeat their schemas."""
    try:
        return parts_of(json.loads(text))
    except UnsupportedError as problem:
        return str(problem)


def parse_json(text: str) -> Any:
    """Parse `text` as JSON.

    Raises:
        ValueError: it is not JSON (NaN and Infinity are not), or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
