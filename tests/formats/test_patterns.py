"""Patterns: look-aheads at the beginning are matched exactly; what cannot be is left to the model."""

from __future__ import annotations

import random
import re

import pytest
from fuzzing import fuzz

from cascade.formats.patterns import MAX_LENGTH, Pattern, compiled, pattern_problem

EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
PASSWORD = r"^(?=.*[a-z])(?=.*\d)[a-z\d]{3,}$"


def a_piece(chance: random.Random, depth: int = 2) -> str:
    if depth and chance.random() < 0.3:
        inner = a_piece(chance, depth - 1) + chance.choice(["", "|"]) + a_piece(chance, depth - 1)
        return f"({inner})"
    return chance.choice(
        ["a", "b", ".", "[ab)|]", r"\)", r"[^\]a]", "a*", "b?", ".*", r"\.", "(?:a|b)+", "$", r"\d"]
    )


def a_pattern(chance: random.Random) -> list[str]:
    """A pattern with look-aheads at its beginning, and texts for it."""
    ahead = "".join(
        f"(?{chance.choice('=!')}{a_piece(chance)}{a_piece(chance)})" for _ in range(chance.randrange(4))
    )
    rest = "".join(a_piece(chance) for _ in range(chance.randrange(4)))
    texts = ["".join(chance.choice("ab.)1]|") for _ in range(chance.randrange(7))) for _ in range(6)]
    return [f"^{ahead}{rest}", *texts]


def as_python(drawn: list[str]) -> None:
    pattern, *texts = drawn
    known = compiled(pattern)
    assert isinstance(known, Pattern), pattern  # every pattern of this shape is taken
    for text in texts:
        assert known.matches(text) == bool(re.search(pattern, text)), text


@pytest.mark.parametrize("examples", [500, pytest.param(30_000, marks=pytest.mark.slow)])
def test_look_aheads_at_the_beginning_are_matched_exactly(examples: int) -> None:
    fuzz("look-aheads", a_pattern, as_python, examples=examples)


@pytest.mark.parametrize("pattern", [EMAIL, DECIMAL, PASSWORD])
def test_what_zod_and_pydantic_write_is_matched_exactly(pattern: str) -> None:
    chance = random.Random(pattern)
    texts = ["".join(chance.choice("ab1.+-@_ ") for _ in range(chance.randrange(9))) for _ in range(500)]
    known = compiled(pattern)
    assert isinstance(known, Pattern)
    matched = [known.matches(text) for text in [*texts, "a@b.co", "1.50", "ab12"]]
    assert matched == [bool(re.search(pattern, text)) for text in [*texts, "a@b.co", "1.50", "ab12"]]
    assert any(matched)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a)\1",
        "(?<=a)b",
        "a(?=b)",
        "^(?!a)b|c",
        "^(?!a)*b",
        "^(?!(?=a))b",
        ".{0,5000}",
        r"(\p{L}|\p{N}){1000}",
    ],
)
def test_the_others_are_left_to_the_model(pattern: str) -> None:
    assert compiled(pattern) is None
    assert pattern_problem(pattern) is None


@pytest.mark.parametrize("pattern", ["(", ")", "[a", "*a", "a\\", "^(?!a))b", "x" * (MAX_LENGTH + 1), 7])
def test_what_is_no_pattern_anywhere_is_refused(pattern: object) -> None:
    assert pattern_problem(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"\u00e9+\Z", "éé", True), (r"^\d$", "٣", False), (r"^\w$", "é", False), ("^a$", "a\n", False),
        ("^.$", "\U0001f600", True), ("^.$", "\ud83d\ude00", True), ("\ufffd", "\ud800", True),
        ("^a\\\\u0041$", "a\\u0041", True),
    ],
)  # fmt: skip
def test_dialect(pattern: str, text: str, found: bool) -> None:
    """As in ECMA-262, `$` is the end of the text, and classes are ASCII."""
    known = compiled(pattern)
    assert isinstance(known, Pattern)
    assert known.matches(text) is found
