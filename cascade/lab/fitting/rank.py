"""Fitting the ranker of a copied field: a regularised softmax over the candidates of each text.

The loss of a row is −log of the probability that its value has, summed over the places where it stands. The
gradient of a run's score is spread over its first token, its last and those in it, so that neither time nor
memory grows with the number of features times the number of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.candidates import collapsed
from cascade.engine.fields import SpanShape, candidates_of
from cascade.engine.text_features import BUCKETS, MAX_SPAN, WHOLE, TextView
from cascade.formats.flat_schema import Field

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

PENALTY = 0.5  # of the squared weights, against the sum of the rows' losses
MAX_STEPS = 60  # of L-BFGS
_SMALL = 1e-3  # a weight that is left out of the file


class Offer(NamedTuple):
    """A text, what it offers for a field, and which of that is right; the last is "there is none"."""

    view: TextView
    first: IntArray
    last: IntArray
    extra: IntArray
    right: npt.NDArray[np.bool_]


def offer(field: Field, shape: SpanShape, view: TextView, value: Any) -> Offer:
    """Return what a text offers for a field whose value is `value`, None for none.

    Where the text does not hold a value, nothing in it is right: the last entry is.
    """
    found = candidates_of(field, shape, view)
    wanted = collapsed(value) if isinstance(value, str) else value
    right = np.array([*(value is not None and each == wanted for each in found.values), False], bool)
    right[-1] = not right.any()
    return Offer(view, found.first, found.last, found.extra, right)


def span_shape(values: Sequence[str]) -> SpanShape:
    """Return which runs of words hold these values: one token longer than the longest, and their edges."""
    longest, edges = 1, set()
    for value in values:
        view = TextView(collapsed(value))
        longest = max(longest, len(view.tokens))
        edges |= {char for char in (value.strip()[:1], value.strip()[-1:]) if char and not char.isalnum()}
    return SpanShape(min(longest + 1, MAX_SPAN), "".join(sorted(edges)))


def fit_weights(offers: Sequence[Offer], penalty: float = PENALTY) -> npt.NDArray[np.float32]:
    """Return the weights of the hashed features, shape (`BUCKETS`,)."""
    from scipy.optimize import minimize

    problem = _Problem(offers, penalty)
    start = np.zeros(len(problem.used))
    done = minimize(
        problem.loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS, "maxcor": 7}
    )
    weights = np.zeros(BUCKETS, np.float32)
    weights[problem.used] = np.where(np.abs(done.x) < _SMALL, 0.0, done.x)
    return weights


class _Problem:
    """The loss and its gradient, over all rows at once."""

    def __init__(self, offers: Sequence[Offer], penalty: float) -> None:
        views = [each.view for each in offers]
        tokens = np.cumsum([0, *(len(view.tokens) for view in views)])
        sizes = np.array([len(each.first) for each in offers])
        shift = np.repeat(tokens[:-1], sizes)
        self._first = np.concatenate([each.first for each in offers]) + shift
        self._last = np.concatenate([each.last for each in offers]) + shift
        self._starts = np.concatenate([[0], np.cumsum(sizes + 1)])[:-1]
        self._row = np.repeat(np.arange(len(offers)), sizes + 1)
        self._none = self._starts + sizes
        real = np.ones(len(self._row), bool)
        real[self._none] = False
        self._real = np.flatnonzero(real)
        self._right = np.concatenate([each.right for each in offers])
        blocks = [
            [view.first for view in views], [view.last for view in views], [view.inner for view in views],
            [each.extra for each in offers], [view.whole[None, :] for view in views],
        ]  # fmt: skip
        self.used, self._parts = _compact(blocks)
        self._parts[-1].data *= WHOLE
        self._penalty = penalty

    def loss(self, weights: FloatArray) -> tuple[float, FloatArray]:
        """Return loss and gradient at the weights of the features `used`."""
        first, last, inner, extra, whole = (part @ weights for part in self._parts)
        run = np.concatenate([[0.0], np.cumsum(inner)])
        scores = np.empty(len(self._row))
        scores[self._real] = (
            first[self._first] + last[self._last] + run[self._last + 1] - run[self._first] + extra
        )
        scores[self._none] = whole
        model, total = self._softmax(scores)
        target, wanted = self._softmax(np.where(self._right, scores, -np.inf))
        value = float((total - wanted).sum()) + 0.5 * self._penalty * float(weights @ weights)
        return value, self._gradient(model - target) + self._penalty * weights

    def _softmax(self, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the probabilities within each row, and each row's log of the sum."""
        top = np.maximum.reduceat(scores, self._starts)
        odds = np.exp(scores - top[self._row])
        sums = np.add.reduceat(odds, self._starts)
        return odds / sums[self._row], top + np.log(sums)

    def _gradient(self, residual: FloatArray) -> FloatArray:
        own = residual[self._real]
        count = self._parts[0].shape[0]
        first = np.bincount(self._first, own, count)
        last = np.bincount(self._last, own, count)
        change = np.bincount(self._first, own, count + 1) - np.bincount(self._last + 1, own, count + 1)
        sides = (first, last, np.cumsum(change)[:-1], own, residual[self._none])
        total: FloatArray = np.sum(
            [part.T @ side for part, side in zip(self._parts, sides, strict=True)], axis=0
        )
        return total


def _compact(blocks: list[list[IntArray]]) -> tuple[IntArray, list[Any]]:
    """Return the buckets in use, and each block as a sparse matrix of counts over them."""
    from scipy.sparse import csr_matrix

    flat = [np.concatenate([part.ravel() for part in block]) for block in blocks]
    used, where = np.unique(np.concatenate(flat), return_inverse=True)
    matrices, start = [], 0
    for block, ids in zip(blocks, flat, strict=True):
        sizes = np.concatenate([np.full(len(part), part.shape[1]) for part in block])
        ends = np.concatenate([[0], np.cumsum(sizes)])
        columns = where[start : start + len(ids)]
        start += len(ids)
        matrices.append(csr_matrix((np.ones(len(ids)), columns, ends), shape=(len(sizes), len(used))))
    return used, matrices
