"""JSON Schemas that come with requests: are they supported, and does a value satisfy them? In bounded time.

Such a schema may be hostile. Nothing is fetched, regular expressions are matched in linear time (by Rust's
engine, which is part of pydantic), and a check stops after `MAX_STEPS` keywords.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

MAX_BYTES = 100_000  # of one schema as JSON
MAX_DEPTH = 32  # levels of nesting of a schema
MAX_STEPS = 50_000  # keywords evaluated in one check, counted anew for each array item
# Keywords that refer outside the schema, or whose evaluation is not bounded.
_REFUSED = frozenset({
    "$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor", "unevaluatedItems",
    "unevaluatedProperties",
})  # fmt: skip
_VALUES = frozenset({"const", "enum", "default", "examples"})  # their values are data, not schemas
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_steps: ContextVar[list[int]] = ContextVar("steps")
Keyword = Callable[[Any, Any, Any, Any], Iterator[Any]]


class _TooLongError(Exception):
    pass


def schema_problem(schema: object) -> str | None:
    """Return why `schema` is not supported, or None if it is a self-contained JSON Schema of bounded size."""
    if not isinstance(schema, Mapping):
        return f"is {type(schema).__name__}; expected an object, a JSON Schema"
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"is not plain JSON ({error})"
    if len(text) > MAX_BYTES:
        return f"has {len(text)} bytes; a schema has at most {MAX_BYTES}; make it smaller"
    return _problem(text)


@lru_cache(maxsize=64)
def _problem(text: str) -> str | None:
    """Return why the schema in `text` is not supported; cached, because applications repeat their schemas."""
    schema = json.loads(text)
    return _problem_in(schema, "", 0) or _unsound(schema)


def value_problem(schema: Mapping[str, Any], value: object) -> str | None:
    """Return where and why `value` does not satisfy `schema`, or None.

    `schema_problem` must have accepted the schema. The reason quotes the schema, never the value, because it
    is stored even in traces without texts.
    """
    steps = _steps.set([0])
    try:
        error = next(iter(_validator(schema).iter_errors(value)), None)
    except _TooLongError:
        return f"it takes more than {MAX_STEPS} steps to check it against the schema"
    except RecursionError:
        return "it is nested too deeply, or the schema refers to itself without an end"
    except (ArithmeticError, ValueError) as failure:
        return f"it cannot be checked against the schema ({type(failure).__name__})"
    finally:
        _steps.reset(steps)
    if error is None:
        return None
    return _reason(schema, error)


def _reason(schema: Mapping[str, Any], error: Any) -> str:
    names = json.dumps(schema)
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    known = (step if step[0] == "[" or json.dumps(step[1:]) in names else ".*" for step in steps)
    location, expected = "$" + "".join(known), error.validator_value
    if error.validator == "required":
        missing = next(name for name in expected if name not in error.instance)
        return f"{location}: {missing!r} is missing"
    if error.validator == "additionalProperties" and expected is False:
        known_names = ", ".join(error.schema.get("properties", ()))[:200]
        return f"{location}: has a property that is not expected; known: {known_names}"
    if error.validator is None:
        return f"{location}: nothing may be here"
    return f"{location}: violates {error.validator} {json.dumps(expected)[:100]}"


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


def _problem_in(schema: object, location: str, depth: int) -> str | None:
    """Return the first keyword of `schema` that is not supported, and why."""
    if depth > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH} levels at {location[:80]}"
    if isinstance(schema, list):
        problems = (_problem_in(item, f"{location}/{index}", depth + 1) for index, item in enumerate(schema))
        return next(filter(None, problems), None)
    if not isinstance(schema, Mapping):
        return None
    for key, inner in schema.items():
        problem = _keyword(str(key), inner, f"{location}/{key}", depth)
        if problem is not None:
            return problem
    return None


def _keyword(key: str, value: Any, location: str, depth: int) -> str | None:
    if key in _REFUSED or (key == "$schema" and location != "/$schema"):
        return f"has {location}, which is not supported; write the schema without {key}"
    if key == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        return f"refers to {value!r:.80} at {location}; only references into itself (#/…) are followed"
    patterns = [value] if key == "pattern" else list(value) if key == "patternProperties" else []
    for pattern in patterns:
        problem = _pattern_problem(pattern)
        if problem is not None:
            return f"has the pattern {pattern!r:.80} at {location}: {problem}"
    if key in _VALUES:
        return None
    if key in _NAMED and isinstance(value, Mapping):  # its keys are names, not keywords
        problems = (_problem_in(inner, f"{location}/{name}", depth + 1) for name, inner in value.items())
        return next(filter(None, problems), None)
    return _problem_in(value, location, depth + 1)


def _pattern_problem(pattern: object) -> str | None:
    if not isinstance(pattern, str):
        return "expected a string"
    from pydantic_core import SchemaError

    try:
        _matcher(pattern)
    except SchemaError:
        return "it cannot be matched in linear time; write it without look-around, back references and " \
            "large repetitions"  # fmt: skip
    return None


def _unsound(schema: Mapping[str, Any]) -> str | None:
    """Return why `schema` is not a valid JSON Schema, or which of its references has no target."""
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable

    kind = _base(schema)
    try:
        kind.check_schema(dict(schema), format_checker=None)
        resolver = kind(schema)._resolver
        for reference in _references(schema):
            resolver.lookup(reference)
    except SchemaError as error:
        return f"is no JSON Schema: {error.json_path}: {error.message[:200]}"
    except Unresolvable as error:
        return f"refers to {error.ref!r:.80}, which it does not have; add it under $defs"
    except RecursionError:
        return "refers to itself without an end"
    return None


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


def _base(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, default=Draft202012Validator)


def _validator(schema: Mapping[str, Any]) -> Any:
    # Without $schema, which would bring back the unbounded class when a reference leads to the root.
    return _bounded(_base(schema))({key: value for key, value in schema.items() if key != "$schema"})


@lru_cache(maxsize=8)
def _bounded(base: Any) -> Any:
    """Return the validator class `base`, with counted steps and keywords that take linear time."""
    from jsonschema.validators import extend

    own: dict[str, Keyword] = {
        "pattern": _pattern, "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties, "uniqueItems": _unique_items,
    }  # fmt: skip
    keywords = {name: _counted(own.get(name, check)) for name, check in base.VALIDATORS.items()}
    return extend(base, validators=keywords)


def _counted(check: Keyword) -> Keyword:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        steps = _steps.get()
        steps[0] += 1
        if steps[0] > MAX_STEPS:
            raise _TooLongError
        yield from check(validator, value, instance, schema) or ()

    return counted


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Any:
    from pydantic_core import SchemaValidator, core_schema

    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _matches(pattern: str, text: str) -> bool:
    return bool(_matcher(pattern).isinstance_python(text))


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError("no match")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[Any]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for key, value in instance.items():
                if _matches(pattern, key):
                    yield from validator.descend(value, inner, path=key, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, value in instance.items():
        if key in named or any(_matches(pattern, key) for pattern in patterns):
            continue
        if inner is False:
            yield ValidationError("not expected")
        elif inner is not True:
            yield from validator.descend(value, inner, path=key)


def _unique_items(validator: Any, unique: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if unique and isinstance(instance, list):
        keys = {json.dumps(_plain(item), sort_keys=True) for item in instance}
        if len(keys) < len(instance):
            yield ValidationError("not unique")


def _plain(value: Any) -> Any:
    """Return `value` with 1.0 as 1, because JSON Schema compares items as numbers."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
