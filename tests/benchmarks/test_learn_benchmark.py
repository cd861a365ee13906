"""The benchmark of learned heads measures every method on the same rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import learn
from published import OOS

WORDS = {"card": ["lost card", "stolen card", "block it"], "weather": ["rain today", "sunny day", "how cold"]}


@pytest.fixture(scope="module")
def data() -> learn.Set:
    def rows(mark: str) -> tuple[list[str], list[str]]:
        made = [(f"{t} {mark} {n}", label) for label, ts in WORDS.items() for t in ts for n in range(3)]
        return [text for text, _ in made], [label for _, label in made]

    texts, labels = rows("please")
    test_texts, test_labels = rows("now")
    vectors = learn.embed([*texts, *test_texts, "e = mc²"], None)
    return learn.Set(
        "tickets", texts, labels, vectors[: len(texts)], [*test_texts, "e = mc²"], [*test_labels, OOS],
        vectors[len(texts) :], 0.0,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["tfidf", "frozen", "head"])
def test_each_method_answers_and_out_of_scope_rows_count_for_knowing_alone(
    data: learn.Set, method: str
) -> None:
    found = learn.measure(data, learn.FULL, 0, method)
    low, high = found["accuracy_ci"]
    assert low <= found["accuracy"] <= high
    assert found["accuracy"] > 0.7
    assert 0.0 <= found["known"] <= 1.0
    assert len(learn.cells(found)) == len(learn.COLUMNS)
    assert (found["milliseconds"] > 0) == (method == "head")


def test_so_many_rows_of_each_label_are_drawn_by_the_seed(data: learn.Set) -> None:
    first, again, other = (data.chosen(4, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert sorted(data.labels[index] for index in first) == ["card"] * 4 + ["weather"] * 4
    assert len(data.chosen(learn.FULL, 0)) == len(data.texts)
