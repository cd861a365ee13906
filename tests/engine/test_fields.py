"""Every answer satisfies its schema, whatever the text and whatever was learnt."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.engine.fields import Extractor, Ranker, SpanShape, read_extractor
from cascade.engine.text_features import BUCKETS
from cascade.errors import ModelError
from cascade.formats.flat_schema import Field, FieldKind, flat_fields
from cascade.formats.schemas import value_problem

FALLBACK = {"number": 3, "integer": 3, "date": "2026-01-31", "span": "ABC"}
COPIED = st.sampled_from([
    {"type": "number"}, {"type": "number", "minimum": 2, "maximum": 50}, {"type": "integer", "multipleOf": 3},
    {"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}, {"type": "string", "pattern": "^[A-Z]+$"},
    {"type": "string", "minLength": 3, "maxLength": 5}, {"type": "string", "format": "date"},
])  # fmt: skip
CLOSED = st.sampled_from([{"enum": ["a", "b", None]}, {"type": "boolean"}, {"const": 7}, {"enum": [1, 2.5]}])
TEXTS = st.one_of(
    st.text(max_size=120),
    st.lists(
        st.sampled_from(["ABC", "3", "1,234.50", "on", "2026-03-04", "\n", "12/11/26", "(x", "-7.5", "two"])
    ).map(" ".join),
)


class Answer(NamedTuple):
    probabilities: Any
    confidence: float


class Guess:
    """A head that answers by the length of the text."""

    def __init__(self, labels: list[str]) -> None:
        self.labels, self.size = labels, 2

    def answer(self, vector: Any, text: str) -> Answer:
        return Answer(np.eye(len(self.labels))[len(text) % len(self.labels)], 0.7)


def extractor(schema: dict[str, Any], seed: int) -> Extractor:
    draw = np.random.default_rng(seed)
    rankers, heads = {}, {}
    for field in flat_fields(schema):
        if field.kind is not FieldKind.CLOSED:
            rankers[field.name] = ranker(field, draw.normal(size=BUCKETS).astype(np.float32))
        elif len(field.values) > 1 or field.optional:
            none = [None] if field.optional else []
            heads[field.name] = Guess([json.dumps(value) for value in (*field.values, *none)])
    return Extractor(schema, rankers, heads)


def ranker(field: Field, weights: Any) -> Ranker:
    return Ranker(field, SpanShape(4, ".("), weights, None if field.optional else FALLBACK[field.kind])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(COPIED, CLOSED), min_size=1, max_size=4), st.data(), TEXTS, st.integers(0, 9))
def test_an_answer_satisfies_its_schema(parts: list[Any], data: st.DataObject, text: str, seed: int) -> None:
    names = [f"f{index}" for index in range(len(parts))]
    schema = {
        "type": "object",
        "properties": {
            name: {"anyOf": [part, {"type": "null"}]} if data.draw(st.booleans()) else part
            for name, part in zip(names, parts, strict=True)
        },
        "required": [name for name in names if data.draw(st.booleans())],
        "additionalProperties": False,
    }
    found = extractor(schema, seed).answer(np.ones(2, np.float32), text)
    assert value_problem(schema, json.loads(json.dumps(found.answer))) is None
    assert set(found.fields) == set(names)
    assert all(0 <= each <= 1 for each in (*found.fields.values(), found.confidence))


SCHEMA = {
    "type": "object",
    "properties": {
        "total": {"type": "number"},
        "kind": {"enum": ["a", "b"]},
        "day": {"type": ["string", "null"], "format": "date"},
    },
    "required": ["total", "kind"],
}


def test_an_extractor_is_the_same_after_it_was_stored() -> None:
    made = extractor(SCHEMA, 1)
    kept, arrays = made.stored()
    again = read_extractor(json.loads(json.dumps(kept, sort_keys=True)), arrays, made.heads)
    for text in ("it is 12.50 of 3", "", "1 2 3 4"):
        found, before = (each.answer(np.ones(2, np.float32), text) for each in (again, made))
        assert found == before
        assert list(found.answer) == list(before.answer)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda kept, _: kept.update(version=2), "version 2"),
        (lambda kept, _: kept.pop("schema"), "KeyError"),
        (lambda kept, _: kept["rankers"][0].update(fallback=None), "fallback"),
        (lambda kept, _: kept["rankers"][0].update(longest=0), "broken"),
        (lambda kept, _: kept["rankers"].pop(), "does not fit"),
        (lambda _, arrays: arrays.pop("0.weights"), "broken"),
        (lambda _, arrays: arrays["0.weights"].fill(np.nan), "weights"),
        (lambda _, arrays: arrays["0.buckets"].fill(BUCKETS), "weights"),
    ],
)
def test_broken_parts_are_refused(change: Any, expected: str) -> None:
    made = extractor(SCHEMA, 1)
    kept, arrays = made.stored()
    change(kept, arrays)
    with pytest.raises(ModelError, match=expected):
        read_extractor(kept, arrays, made.heads)


def test_a_head_that_answers_what_the_schema_does_not_know_is_refused() -> None:
    kept, arrays = extractor(SCHEMA, 1).stored()
    for heads in ({}, {"kind": Guess(['"a"', '"c"'])}):
        with pytest.raises(ModelError, match="kind"):
            read_extractor(kept, arrays, heads)
