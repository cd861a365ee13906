"""Multinomial logistic regression with a quadratic penalty, on dense or sparse columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
_MEMORY = 8  # pairs of L-BFGS
_TOLERANCE = 1e-5  # of the gradient's largest element


class Linear(NamedTuple):
    """Logits are `columns @ weights + bias`; weights have shape (columns, labels)."""

    weights: Matrix
    bias: Matrix

    def logits(self, columns: Any) -> Matrix:
        """Return logits, shape (rows, labels)."""
        return np.asarray(columns @ self.weights + self.bias, dtype=np.float32)


class _OutOfTimeError(Exception):
    pass


def fit_logistic(
    columns: Any,
    target: Indices,
    labels: int,
    penalty: float,
    *,
    start: Linear | None = None,
    steps: int = 100,
    seconds_left: Callable[[], float] = lambda: 1.0,
) -> Linear:
    """Minimise mean cross-entropy + penalty / 2 × |weights|² by L-BFGS (D. C. Liu and J. Nocedal 1989).

    Args:
        columns: shape (rows, columns), of 32-bit floats: an array, or a sparse matrix by rows.
        target: index of each row's label.
        labels: number of labels.
        penalty: strength; the bias is free of it.
        start: weights to begin with.
        steps: of L-BFGS at most.
        seconds_left: asked before each step; at 0 the weights so far are returned.
    """
    from scipy.optimize import minimize

    rows, width = columns.shape
    wanted = np.arange(rows)
    size = width * labels
    best = np.zeros(size + labels)
    if start is not None:
        best = np.concatenate([start.weights.ravel(), start.bias]).astype(np.float64)

    def loss(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = point[:size].reshape(width, labels).astype(np.float32)
        logits = columns @ weights + point[size:].astype(np.float32)
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[wanted, target].astype(np.float64)
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        value = float(np.mean(np.log(sums.astype(np.float64)) - own))
        logits /= sums[:, None]
        logits[wanted, target] -= 1.0
        slope = np.empty_like(point)
        slope[:size] = (columns.T @ logits).ravel() / rows + penalty * point[:size]
        slope[size:] = logits.sum(axis=0, dtype=np.float64) / rows
        return value + 0.5 * penalty * float(point[:size] @ point[:size]), slope

    def keep(point: npt.NDArray[np.float64]) -> None:
        best[:] = point
        if not seconds_left():
            raise _OutOfTimeError

    options = {"maxiter": steps, "maxcor": _MEMORY, "gtol": _TOLERANCE, "ftol": 1e-9}
    with suppress(_OutOfTimeError):
        minimize(loss, best.copy(), jac=True, method="L-BFGS-B", callback=keep, options=options)
    return Linear(best[:size].reshape(width, labels).astype(np.float32), best[size:].astype(np.float32))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS use one thread: fits run beside each other, and a sum has one order whatever the cores."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
