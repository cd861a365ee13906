"""Cross-fitting one view: its penalty, and each row's logits by a fit that has not seen the row's group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.head import softmax
from cascade.engine.threads import available_cores
from cascade.lab.fitting.calibrate import fit_temperature
from cascade.lab.fitting.logistic import Linear, fit_logistic

Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
_TINY = 1e-12


class View(NamedTuple):
    """One way of seeing the rows.

    Attributes:
        columns: shape (rows, columns), an array or a sparse matrix by rows.
        strengths: rows × inverse penalty, as scikit-learn's C: to choose from, in ascending order.
        steps: of L-BFGS at most.
    """

    columns: Any
    strengths: Sequence[float]
    steps: int


class Problem(NamedTuple):
    """What is to be learned.

    Attributes:
        target: index of each row's label.
        labels: number of labels.
        fold: each row's fold.
        seconds_left: 0 when the time is up.
    """

    target: Indices
    labels: int
    fold: Indices
    seconds_left: Callable[[], float]


class CrossFitted(NamedTuple):
    """A view's strength, and the logits of all rows by fits without each row's fold."""

    strength: float
    logits: Matrix


def cross_fit(view: View, problem: Problem, done: Callable[[float], None]) -> CrossFitted:
    """Choose a strength on the first fold and cross-fit with it.

    When the time is up, fits end where they are.

    Folds run beside each other, each on one thread, so that the numbers do not depend on the threads.

    Args:
        view: what the rows look like.
        problem: what is to be learned.
        done: called with the share that is done.
    """
    strength, first = _choose(view, problem)
    logits = np.zeros((len(problem.target), problem.labels), np.float32)
    logits[problem.fold == 0] = first
    folds = int(problem.fold.max()) + 1
    done(0.3)

    def run(part: int) -> None:
        inside = problem.fold != part
        found = fit(view, problem, strength, inside)
        logits[~inside] = found.logits(view.columns[np.flatnonzero(~inside)])

    pool = ThreadPoolExecutor(available_cores())
    try:
        for part, _ in enumerate(pool.map(run, range(1, folds)), start=1):
            done(0.3 + 0.7 * part / folds)
    finally:  # an interrupt does not wait for folds that have not begun
        pool.shutdown(cancel_futures=True)
    return CrossFitted(strength, logits)


def fit(
    view: View,
    problem: Problem,
    strength: float,
    inside: npt.NDArray[np.bool_] | None = None,
    start: Linear | None = None,
) -> Linear:
    """Fit a view on the rows `inside`; None: on all."""
    columns, target = view.columns, problem.target
    if inside is not None:
        rows = np.flatnonzero(inside)
        columns, target = columns[rows], target[rows]
    penalty = 1.0 / (strength * len(target))
    return fit_logistic(
        columns, target, problem.labels, penalty, start=start, steps=view.steps,
        seconds_left=problem.seconds_left,
    )  # fmt: skip


def cross_entropy(logits: Matrix, target: Indices) -> float:
    """Return the mean of −log of the right label's probability."""
    chances = softmax(logits)[np.arange(len(target)), target]
    return float(-np.log(np.maximum(chances, _TINY)).mean())


def _choose(view: View, problem: Problem) -> tuple[float, Matrix]:
    inside = problem.fold != 0
    outside = np.flatnonzero(~inside)
    start: Linear | None = None
    best: tuple[float, float, Matrix] | None = None
    for strength in view.strengths:
        start = fit(view, problem, strength, inside, start)
        logits = start.logits(view.columns[outside])
        target = problem.target[outside]
        loss = cross_entropy(logits / np.float32(fit_temperature(logits, target)), target)
        if best is not None and loss >= best[0]:
            break
        best = (loss, strength, logits)
        if not problem.seconds_left():
            break
    assert best is not None  # there is at least one strength
    return best[1], best[2]
