"""Requests that are made to cost much: what it takes to accept or refuse one is bounded, whatever its size.

Steps are calls of functions, Python's and C's, so a busy machine changes nothing. What one call may take is
bounded elsewhere: patterns by their number and RE2's memory, texts by their length.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from fuzzing import fuzz

from cascade.errors import ConfigError, RequestError
from cascade.formats.json_grammar import schema_grammar
from cascade.formats.schemas import MAX_STEPS, schema_problem, value_problem
from cascade.requests import build_request

MOST = 1_500_000  # steps of one request; about a quarter of a second
SLOW = pytest.mark.slow
USER = {"role": "user", "content": "x"}


def steps_of(work: Callable[[], object]) -> int:
    """Return how many functions `work` calls."""
    count = 0

    def called(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def deep(levels: int, inner: Any, wrap: Callable[[Any], Any]) -> Any:
    for _ in range(levels):
        inner = wrap(inner)
    return inner


def one_call(number: int) -> dict[str, Any]:
    return {"id": f"c{number}", "name": "f", "arguments": "{}"}


def schema_bombs(n: int) -> list[Any]:
    """Schemas of a size that grows with `n`."""
    ways = [
        r"\w{99}",
        r"[\w\W]{900}",
        r"(\p{L}|\p{N}){500}",
        "(a{30}){30}",
        "(x+x+)+y",
        "(?=a)" * 8,
        "^(?!a)" * 9,
    ]
    return [
        {"anyOf": [{"pattern": way * (1 + i % 9)} for i, way in zip(range(n), ways * n, strict=False)]},
        {"patternProperties": {f"{i}{ways[i % 7]}": {} for i in range(n)}},
        {"pattern": r"\w{99}" * n}, {"pattern": "(" * n + ")" * n},
        {"anyOf": [{}] * n}, {"enum": [*range(n)]}, {"enum": ["x" * 40] * n}, {"required": ["a"] * n},
        {"properties": {f"p{i}": {"type": "string"} for i in range(n)}}, {f"k{i}": 1 for i in range(n)},
        {"oneOf": [{"required": ["a"], "properties": {"a": {"const": i}}} for i in range(n)]},
        {"$ref": "#/$defs/d0",
         "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(n)}},
        {"const": 10 ** min(n, 4000)}, {"const": "é" * n}, {"const": [0] * n},
        {"type": "array", "items": {"type": "string", "minLength": 2000}, "minItems": min(n, 2000)},
        {"anyOf": [{"items": {"type": "integer"}, "minItems": 2000, "maxItems": 2000}] * n},
        deep(min(n, 900), {}, lambda inner: {"items": inner}),
        deep(min(n, 900), [], lambda inner: {"const": [inner]}),
    ]  # fmt: skip


def request_bombs(n: int) -> list[tuple[Any, dict[str, Any]]]:
    """Inputs and options of a size that grows with `n`."""
    calls = [one_call(number) for number in range(n)]
    return [
        ([{"role": "user", "content": [0] * n}], {}), ([USER] * n, {}), ([0] * n, {}), ("x" * n, {}),
        ([{"role": "assistant", "tool_calls": calls}, USER], {}), ([{**USER, "tool_calls": [0] * n}], {}),
        ([{"role": "assistant", "tool_calls": calls[i : i + 128]} for i in range(0, n, 128)] + [USER], {}),
        ([USER | {f"k{i}": 1 for i in range(n)}], {}),
        ([{"role": "assistant", "tool_calls": [{"id": "é" * n, "name": "f", "arguments": ""}]}, USER], {}),
        ("x", {"metadata": {"a": [0.0] * n}}), ("x", {"metadata": {f"k{i}": "v" for i in range(n)}}),
        ("x", {"metadata": {"a": float("inf")}}), ("x", {"metadata": {"a": 10**n if n < 5000 else "é" * n}}),
        ("x", {"metadata": deep(min(n, 900), {}, lambda inner: {"a": inner})}), ("x", {"account": "a" * n}),
        ("x", {"tools": [{"name": f"t{i}"} for i in range(n)]}),
        ("x", {"tools": [{"name": f"t{i}", "description": "d" * n} for i in range(min(n, 128))]}),
        ("x", {"tools": [{"name": f"t{i}", "parameters": {"anyOf": [{}] * min(n, 3000)}}
                         for i in range(120)]}),
        ("x", {"tools": [{"name": f"t{i}", "parameters": {"anyOf": [{"pattern": f"{i}{j}" + r"\w{99}"}
               for j in range(min(n, 90))]}} for i in range(120)]}),
        *(("x", {"output_schema": schema}) for schema in schema_bombs(n)),
    ]  # fmt: skip


@pytest.mark.parametrize("n", [100, 3000, 30_000, pytest.param(200_000, marks=SLOW)])
def test_what_a_request_costs_is_bounded(n: int) -> None:
    for number, (asked, options) in enumerate(request_bombs(n)):

        def work(asked: Any = asked, options: Any = options) -> None:
            with contextlib.suppress(RequestError):
                build_request(asked, options)

        assert steps_of(work) < MOST, f"bomb {number}: {str(options)[:80]}"


@pytest.mark.parametrize("n", [100, 1300, pytest.param(4000, marks=SLOW)])
def test_what_a_grammar_costs_is_bounded(n: int) -> None:
    for schema in schema_bombs(n):

        def work(schema: Any = schema) -> None:
            with contextlib.suppress(ConfigError):
                schema_grammar(schema)

        if schema_problem(schema) is None:
            assert steps_of(work) < 3 * MOST, str(schema)[:80]


ANSWERS: list[Any] = [
    [1] * 40_000, [{}] * 40_000, ["99"] * 40_000, 0, "a" * 100_000, {f"k{i}": i for i in range(9000)},
    [[0] * 300] * 100, deep(800, 0, lambda inner: [inner]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("n", "answers"),
    [(90, ANSWERS[2:4]), pytest.param(90, ANSWERS, marks=SLOW), pytest.param(1300, ANSWERS, marks=SLOW)],
)
def test_what_the_check_of_an_answer_costs_is_bounded(n: int, answers: list[Any]) -> None:
    for schema in schema_bombs(n):
        for wrapped in (schema, {"items": schema}, {"additionalProperties": schema}):
            if schema_problem(wrapped) is None:
                for answer in answers:
                    # A step calls a few functions; reading the schema itself is no step.
                    assert steps_of(lambda: value_problem(wrapped, answer)) < MOST + 20 * MAX_STEPS  # noqa: B023


def a_bomb(chance: random.Random) -> Any:
    asked, options = chance.choice(request_bombs(chance.choice([10, 99, 300, 2100, 6000])))
    if chance.random() < 0.5:
        asked, other = chance.choice(request_bombs(chance.choice([10, 300, 2100])))
        options = options | other
    return [asked, options]


@pytest.mark.slow
def test_two_hundred_bombs() -> None:
    def bounded(bomb: Any) -> None:
        start = time.process_time()
        with contextlib.suppress(RequestError):
            build_request(*bomb)
        assert time.process_time() - start < 5  # generous: the worst takes a quarter of a second

    fuzz("bombs", a_bomb, bounded, examples=200)
