"""Heads: what they read, what they refuse, and that their answers are probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.head import VERSION, Head, ngram_features
from cascade.engine.ngrams import count_ngrams
from cascade.errors import ModelError

SETTINGS = {"version": VERSION, "confidence_weights": [0.2, 0.9, 0.1, 0.05]}
TEXTS = st.text(max_size=80)


def arrays(labels: int = 3, size: int = 8, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(seed)
    keys = np.unique(count_ngrams(["where is my card", "cancel the order", "книга и чай"]).keys)
    return {
        "weights": random.normal(size=(labels, size)).astype(np.float32),
        "bias": random.normal(size=labels).astype(np.float32),
        "ngram_keys": keys,
        "ngram_idf": random.uniform(1, 3, len(keys)).astype(np.float32),
        "ngram_weights": random.integers(-127, 128, (len(keys), labels)).astype(np.int8),
        "ngram_scales": random.uniform(0.001, 0.01, labels).astype(np.float32),
        "means": random.integers(-127, 128, (labels, size)).astype(np.int8),
        "mean_scales": np.full(labels, 0.01, np.float32),
        "whitening": random.normal(size=(size, size)).astype(np.float32),
        "centre": np.zeros(size, np.float32),
        "known_at": np.linspace(-9, 0, 17).astype(np.float32),
        "confidence_at": np.linspace(-4, 4, 9).astype(np.float32),
        "confidence": np.linspace(0.1, 0.95, 9).astype(np.float32),
    }


def head(labels: int = 3) -> Head:
    return Head.read([f"label {index}" for index in range(labels)], SETTINGS, arrays(labels))


def unit(seed: int, size: int = 8) -> npt.NDArray[np.float32]:
    vector = np.random.default_rng(seed).normal(size=size)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@given(TEXTS, st.integers(0, 1000), st.integers(2, 40))
def test_an_answer_is_a_distribution_with_a_confidence_and_a_rank(text: str, seed: int, labels: int) -> None:
    answer = head(labels).answer(unit(seed), text)
    assert answer.probabilities.shape == (labels,)
    assert answer.probabilities.sum() == pytest.approx(1.0)
    assert 0.0 < answer.confidence < 1.0
    assert 0.0 <= answer.known <= 1.0


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_text_has_the_same_ngrams_alone_and_among_others(texts: list[str]) -> None:
    together = count_ngrams(texts)
    for index, text in enumerate(texts):
        alone, part = count_ngrams([text]), slice(together.starts[index], together.starts[index + 1])
        assert np.array_equal(alone.keys, together.keys[part])
        assert np.array_equal(alone.counts, together.counts[part])


@given(TEXTS)
def test_each_kind_of_ngrams_has_length_one(text: str) -> None:
    keys = np.unique(count_ngrams([text]).keys)
    found = ngram_features([text], keys, np.ones(len(keys), np.float32))
    kinds = keys[found.columns] & 1
    for kind in np.unique(kinds):
        assert np.linalg.norm(found.values[kinds == kind]) == pytest.approx(1.0, abs=1e-5)


def test_ngrams_are_those_of_the_text() -> None:
    def keys(text: str) -> set[int]:
        return set(count_ngrams([text]).keys.tolist())

    assert keys("Lost  CARD") == keys(" lost\ncard ")
    assert keys("lost") <= keys("lost card")  # a word's n-grams do not depend on its neighbours
    assert keys("card lost") != keys("lost card")  # pairs of words have an order
    assert not keys("cat") & keys("dogs")
    assert not keys("")
    assert keys("很好")


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=30))
def test_confidence_never_falls_when_its_score_rises(scores: list[float]) -> None:
    columns = np.column_stack([np.sort(scores), np.zeros(len(scores)), np.zeros(len(scores))])
    assert (np.diff(head().confidence(columns)) >= 0).all()


@pytest.mark.parametrize(
    ("name", "broken", "said"),
    [
        ("weights", np.zeros((3, 8)), "float64"),
        ("weights", np.full((3, 8), np.nan, np.float32), "not finite"),
        ("bias", np.zeros(4, np.float32), "4 labels, expected 3"),
        ("ngram_keys", np.array([3, 1], np.uint32), "ngrams"),
        ("known_at", np.array([1.0, 0.0], np.float32), "does not rise"),
        ("centre", np.zeros((1, 8), np.float32), "2 dimensions"),
    ],
)
def test_broken_arrays_are_refused(name: str, broken: npt.NDArray[Any], said: str) -> None:
    with pytest.raises(ModelError, match=f"{name}.*{said}|{said}"):
        Head.read(["a", "b", "c"], SETTINGS, arrays() | {name: broken})


def test_broken_settings_and_vectors_are_refused() -> None:
    with pytest.raises(ModelError, match="version None"):
        Head.read(["a", "b", "c"], {}, arrays())
    with pytest.raises(ModelError, match="confidence_weights"):
        Head.read(["a", "b", "c"], {"version": VERSION, "confidence_weights": [1.0]}, arrays())
    with pytest.raises(ModelError, match="no array 'bias'"):
        Head.read(["a", "b", "c"], SETTINGS, {k: v for k, v in arrays().items() if k != "bias"})
    with pytest.raises(ModelError, match="vectors of 8 numbers"):
        head().answer(np.zeros(7, np.float32), "hi")
    with pytest.raises(ModelError, match="finite"):
        head().answer(np.full(8, np.nan, np.float32), "hi")
