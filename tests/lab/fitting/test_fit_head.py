"""Fitting a head: on rows of known structure, and on rows that hardly have any."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cascade.lab.fitting.fit import FittedHead, Rows, fit_head
from cascade.lab.fitting.folds import make_folds
from cascade.lab.fitting.views import choose_ngrams, compact, ngram_matrix

Matrix = npt.NDArray[np.float32]
SIZE = 16


def clusters(counts: list[int], spread: float = 0.5, seed: int = 0) -> tuple[Rows, Matrix]:
    """Return rows of labels that are clusters of vectors, with words that say nothing."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(counts), SIZE))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    target = np.repeat(np.arange(len(counts)), counts)
    vectors = centres[target] + spread * random.normal(size=(len(target), SIZE)) / np.sqrt(SIZE)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"text {index}" for index in random.permutation(len(target))]
    labels = [f"label {index:04}" for index in target]
    return Rows(texts, labels, np.arange(len(target))), vectors.astype(np.float32)


def fit(rows: Rows, vectors: Matrix, seed: int = 0) -> FittedHead:
    return fit_head(rows, vectors, seed=seed)


def accuracy(fitted: FittedHead, rows: Rows, vectors: Matrix) -> float:
    answers = [fitted.head.answer(vector, text) for vector, text in zip(vectors, rows.texts, strict=True)]
    given = [fitted.head.labels[int(answer.probabilities.argmax())] for answer in answers]
    return float(np.mean([a == b for a, b in zip(given, rows.labels, strict=True)]))


def test_a_head_learns_and_its_cross_fitted_scores_tell_the_truth() -> None:
    fitted = fit(*clusters([40] * 6, 0.9))
    fresh = clusters([100] * 6, 0.9, seed=1)
    measured = accuracy(fitted, *fresh)
    assert measured > 0.75
    answers = [
        fitted.head.answer(vector, text) for vector, text in zip(fresh[1], fresh[0].texts, strict=True)
    ]
    assert np.mean([answer.confidence for answer in answers]) == pytest.approx(measured, abs=0.05)
    assert fitted.scores.confidence.mean() == pytest.approx(measured, abs=0.07)


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, second = (fit(*clusters([12] * 4)) for _ in range(2))
    assert first.head.settings == second.head.settings
    for name, array in first.head.arrays.items():
        assert np.array_equal(array, second.head.arrays[name]), name


def test_far_texts_are_unknown() -> None:
    rows, vectors = clusters([40] * 6, 0.6)
    fitted = fit(rows, vectors)
    known = [fitted.head.answer(vector, "").known for vector in clusters([40] * 6, 0.6, seed=1)[1]]
    foreign = [
        fitted.head.answer(vector, "").known
        for vector in np.random.default_rng(5).normal(size=(200, SIZE)).astype(np.float32) / 4.0
    ]
    assert np.mean(known) > 0.35
    assert np.mean(foreign) < 0.1


def test_groups_are_never_split_and_labels_are_spread() -> None:
    random = np.random.default_rng(0)
    target, groups = random.integers(0, 5, 300), random.integers(0, 90, 300)
    fold = make_folds(target, groups, 5, 0)
    assert all(len(np.unique(fold[groups == group])) == 1 for group in np.unique(groups))
    counts = np.array([np.bincount(target[fold == part], minlength=5) for part in range(5)])
    assert counts.min() >= 5


def test_the_order_of_the_rows_matters_little() -> None:
    rows, vectors = clusters([30] * 5, 0.9)
    order = np.random.default_rng(3).permutation(len(vectors))
    other = Rows([rows.texts[i] for i in order], [rows.labels[i] for i in order], rows.groups[order])
    fresh = clusters([60] * 5, 0.9, seed=1)
    assert accuracy(fit(rows, vectors), *fresh) == pytest.approx(
        accuracy(fit(other, vectors[order]), *fresh), abs=0.02
    )


@pytest.mark.parametrize("counts", [[5, 5], [990, 10], [5] * 30, [60, 5, 5]])
def test_few_and_unequal_rows_still_give_a_head(counts: list[int]) -> None:
    rows, vectors = clusters(counts)
    assert accuracy(fit(rows, vectors), rows, vectors) > max(counts) / sum(counts) - 0.01


def test_equal_texts_of_a_label_still_give_a_head() -> None:
    rows, vectors = clusters([10, 10, 10])
    target = np.repeat(np.arange(3), 10)
    same = vectors[[0, 10, 20]][target]
    rows = Rows([f"text {index}" for index in target], rows.labels, target)
    assert accuracy(fit(rows, same), rows, same) == 1.0


def test_when_the_time_is_up_the_best_so_far_is_returned() -> None:
    rows, vectors = clusters([20] * 4)
    fitted = fit_head(rows, vectors, seed=0, deadline=lambda: 0.0)
    assert accuracy(fitted, rows, vectors) > 0.5


def test_calibration_can_be_limited_to_some_rows() -> None:
    rows, vectors = clusters([20] * 4)
    some = np.arange(0, 80, 2)
    fitted = fit_head(rows, vectors, seed=0, calibration=some)
    assert np.array_equal(fitted.calibrated, some)
    assert len(fitted.scores.confidence) == len(some)


def test_what_cannot_be_fitted_is_refused() -> None:
    rows, vectors = clusters([20, 20])
    with pytest.raises(ValueError, match="39 vectors"):
        fit(rows, vectors[1:])
    with pytest.raises(ValueError, match="1 labels"):
        fit(Rows(rows.texts, ["same"] * 40, rows.groups), vectors)


def test_words_help_where_vectors_do_not() -> None:
    random = np.random.default_rng(0)
    target = np.arange(120) % 3
    texts = [f"{('alpha', 'beta', 'gamma')[label]} {random.integers(1000)}" for label in target]
    rows = Rows(texts, [f"label {label}" for label in target], np.arange(120))
    vectors = random.normal(size=(120, SIZE))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    fitted = fit(rows, vectors)
    answers = [fitted.head.answer(vectors[index], text) for index, text in enumerate(("alpha 7", "gamma 9"))]
    assert [int(answer.probabilities.argmax()) for answer in answers] == [0, 2]
    assert fitted.notes["ngrams"] > 0


def test_words_that_say_nothing_are_left_out() -> None:
    fitted = fit(*clusters([40] * 4, 0.9))
    assert fitted.notes["ngrams"] == 0
    assert len(fitted.head.arrays["ngram_keys"]) == 0


def test_few_columns_stand_for_many_ngrams() -> None:
    texts = [f"where is order {index % 7} of {index % 5}" for index in range(30)]
    matrix = ngram_matrix(texts, *choose_ngrams(texts, 2))
    small = compact(matrix)
    assert small.columns.shape[1] < min(matrix.shape)
    gram = (matrix @ matrix.T).toarray()
    assert small.columns @ small.columns.T == pytest.approx(gram, abs=1e-4)
    assert matrix @ small.back == pytest.approx(small.columns, abs=1e-3)


def test_a_progress_that_raises_ends_the_fit() -> None:
    def stop(_: str, __: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_head(*clusters([20] * 4), seed=0, report=stop)


@pytest.mark.slow
def test_two_thousand_labels_are_fitted() -> None:
    rows, vectors = clusters([5] * 2000, 0.2)
    fitted = fit(rows, vectors)
    assert len(fitted.head.labels) == 2000
    assert fitted.scores.confidence.mean() == pytest.approx(
        np.mean(
            [
                fitted.head.labels[i] == label
                for i, label in zip(fitted.scores.predicted, rows.labels, strict=True)
            ]
        ),
        abs=0.05,
    )
