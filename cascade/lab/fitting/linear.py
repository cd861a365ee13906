"""The linear part of a head: a logistic regression on each view of a text, and the sum of their logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.lab.fitting.calibrate import fit_blend
from cascade.lab.fitting.cross_fit import CrossFitted, Problem, View, cross_entropy, cross_fit, fit
from cascade.lab.fitting.logistic import Linear
from cascade.lab.fitting.views import Keys, choose_ngrams, compact, ngram_matrix, packed

Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
_VECTOR_STRENGTHS = (5.0, 20.0, 80.0)
_NGRAM_STRENGTHS = (10.0, 50.0)
_VECTOR_STEPS, _NGRAM_STEPS = 50, 30
_COMPACT_ROWS = 1_600  # a fit on as many columns is quicker than one on the n-grams
# Rows × labels from where one strength has to do, which suits most, and from where fits end sooner.
_LARGE, _HUGE = 1_000_000, 5_000_000
_LARGE_STRENGTHS, _HUGE_STEPS = (20.0,), 20
_LEAST_GAIN = 1e-3  # of cross-entropy by n-grams, to be worth their bytes


class Ngrams(NamedTuple):
    """The view by n-grams, fitted."""

    keys: Keys
    idf: Matrix
    crossed: CrossFitted
    linear: Linear


class FittedLinear(NamedTuple):
    """The linear part of a head.

    Attributes:
        arrays: those of a head.
        logits: calibrated cross-fitted logits of the rows that calibrate, shape (rows, labels).
        notes: what was chosen.
    """

    arrays: dict[str, npt.NDArray[Any]]
    logits: Matrix
    notes: dict[str, Any]


def fit_linear(
    texts: Sequence[str],
    vectors: Matrix,
    problem: Problem,
    chosen: Indices,
    done: Callable[[float], None],
    own: Linear | None = None,
) -> FittedLinear:
    """Fit each view by itself and add up their logits, with the weights of least cross-entropy.

    The two views err on different rows, so that together they are better than either. Where the n-grams add
    nothing to the vectors, they are left out.

    Args:
        texts: the rows' texts.
        vectors: their unit vectors.
        problem: what is to be learned.
        chosen: rows that calibrate.
        done: called with the share that is done.
        own: the encoder's own head on vectors, in place of a fit on vectors of rows that it has seen.
    """
    centre = vectors.mean(axis=0)
    view = _view(vectors - centre, problem, _VECTOR_STRENGTHS, _VECTOR_STEPS)
    if own is None:
        crossed = cross_fit(view, problem, lambda share: done(0.25 * share))
        # The last fit is finished in any case: without it there would be nothing.
        linear = fit(view, problem._replace(seconds_left=lambda: 1.0), crossed.strength)
    else:
        crossed, linear, centre = CrossFitted(0.0, own.logits(vectors)), own, np.zeros_like(centre)
    strength = crossed.strength if own is None else None
    ngrams = _fit_ngrams(texts, problem, lambda share: done(0.3 + 0.65 * share))
    wanted, alone = problem.target[chosen], [crossed.logits[chosen]]
    weights = fit_blend(alone, wanted)
    logits = alone[0] * np.float32(weights[0])
    notes: dict[str, Any] = {"strength": strength, "blend": weights, "ngrams": 0}
    if ngrams is not None:
        both = [*alone, ngrams.crossed.logits[chosen]]
        two = fit_blend(both, wanted)
        blended = both[0] * np.float32(two[0]) + both[1] * np.float32(two[1])
        if cross_entropy(logits, wanted) - cross_entropy(blended, wanted) >= _LEAST_GAIN:
            weights, logits = two, blended
            notes = {"strength": strength, "blend": two, "ngrams": len(ngrams.keys)}
            notes["ngram_strength"] = ngrams.crossed.strength
        else:
            ngrams = None
    arrays = _vector_arrays(linear, centre, weights[0]) | _ngram_arrays(ngrams, weights[-1], problem.labels)
    if ngrams is not None:
        arrays["bias"] = arrays["bias"] + np.float32(weights[1]) * ngrams.linear.bias
    return FittedLinear(arrays, logits, notes)


def _fit_ngrams(texts: Sequence[str], problem: Problem, done: Callable[[float], None]) -> Ngrams | None:
    """Return the fitted view by n-grams; None if there are none, or the time was up before the end."""
    keys, idf = choose_ngrams(texts, problem.labels)
    if not len(keys) or not problem.seconds_left():
        return None
    matrix = ngram_matrix(texts, keys, idf)
    small = compact(matrix) if len(texts) <= _COMPACT_ROWS else None
    columns = matrix if small is None else small.columns
    view = _view(columns, problem, _NGRAM_STRENGTHS, _NGRAM_STEPS)
    crossed = cross_fit(view, problem, lambda share: done(0.8 * share))
    linear = fit(view, problem, crossed.strength)
    if small is not None:
        linear = linear._replace(weights=small.back @ linear.weights)
    done(1.0)
    return Ngrams(keys, idf, crossed, linear) if problem.seconds_left() else None


def _view(columns: Any, problem: Problem, strengths: Sequence[float], steps: int) -> View:
    """Return a view with as many strengths and steps as its size leaves time for."""
    size = len(problem.target) * problem.labels
    if size > _HUGE:
        steps = min(steps, _HUGE_STEPS)
    return View(columns, _LARGE_STRENGTHS if size > _LARGE else strengths, steps)


def _vector_arrays(linear: Linear, centre: Matrix, weight: float) -> dict[str, npt.NDArray[Any]]:
    scaled = linear.weights * np.float32(weight)
    bias = linear.bias * np.float32(weight) - centre @ scaled
    return {"weights": np.ascontiguousarray(scaled.T), "bias": bias.astype(np.float32)}


def _ngram_arrays(ngrams: Ngrams | None, weight: float, labels: int) -> dict[str, npt.NDArray[Any]]:
    if ngrams is None:
        return {
            "ngram_keys": np.zeros(0, np.uint32),
            "ngram_idf": np.zeros(0, np.float32),
            "ngram_weights": np.zeros((0, labels), np.int8),
            "ngram_scales": np.ones(labels, np.float32),
        }
    numbers, scales = packed(ngrams.linear.weights * np.float32(weight))
    return {
        "ngram_keys": ngrams.keys,
        "ngram_idf": ngrams.idf,
        "ngram_weights": numbers,
        "ngram_scales": scales,
    }
