"""Text and data that everybody takes: valid Unicode, plain JSON, within bounds."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.formats.plain import MAX_DEPTH, Pieces, json_problem, plain_json, valid_unicode

ANY_TEXT = st.text(
    st.characters(exclude_categories=[]) | st.sampled_from("\ud83d\ude00\udbff\udc00a"), max_size=12
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary() | st.just(object())
    | st.just(10**4000) | st.just({1, 2}),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner)
    | st.dictionaries(ANY_TEXT | st.integers() | st.none(), inner, max_size=3),
    max_leaves=9,
)  # fmt: skip


@given(ANY_TEXT)
def test_valid_unicode_can_be_encoded_and_keeps_what_is_valid(text: str) -> None:
    clean = valid_unicode(text)
    clean.encode()
    assert valid_unicode(clean) == clean
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert clean == text


@given(st.lists(ANY_TEXT, max_size=6))
def test_pieces_say_what_the_whole_says(parts: list[str]) -> None:
    pieces = Pieces()
    given_on = [pieces.add(part) for part in parts] + [pieces.end()]
    for each in given_on:
        each.encode()
    assert "".join(given_on) == valid_unicode("".join(parts))


@given(ANYTHING)
def test_whatever_a_model_reports_becomes_plain_json(value: Any) -> None:
    plain = plain_json(value)
    json.dumps(plain, ensure_ascii=False).encode()
    if json_problem(value, max_bytes=10**6, max_depth=MAX_DEPTH) is None:
        assert plain == value


@given(ANYTHING)
def test_what_is_taken_as_plain_json_can_be_written(value: Any) -> None:
    if json_problem(value, max_bytes=10**6, max_depth=MAX_DEPTH) is None:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
        assert json.loads(text) == value


def test_a_mapping_that_holds_itself_ends() -> None:
    knot: dict[str, Any] = {}
    knot["self"] = knot
    json.dumps(plain_json(knot))
    assert "deeper" in (json_problem(knot, max_bytes=1000, max_depth=9) or "")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 101, "more than 100 bytes"), ([0] * 101, "more than 100 bytes"),
        ({str(i): 0 for i in range(99)}, "bytes"), ([[[[]]]], "deeper than 3"), (math.inf, "no number"),
        ({1: 2}, "a key 1"), ((1,), "a tuple"), ("\udc00", "Unicode"),
        (2**1024, "1025 bits"), ([1, {"a": ["b", None, True, 1.5]}], None),
    ],
)  # fmt: skip
def test_bounds(value: Any, said: str | None) -> None:
    found = json_problem(value, max_bytes=100, max_depth=3)
    assert found is None if said is None else said in (found or "")
