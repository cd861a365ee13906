"""Fit a head on the vectors of a frozen encoder, and calibrate it on scores of rows that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.head import VERSION, Head, signals, softmax
from cascade.lab.fitting.calibrate import Confidence, fit_confidence
from cascade.lab.fitting.cross_fit import Problem
from cascade.lab.fitting.folds import make_folds
from cascade.lab.fitting.linear import fit_linear
from cascade.lab.fitting.logistic import Linear, one_thread
from cascade.lab.fitting.unknown import fit_nearness

Column = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
Report = Callable[[str, float], None]
_FOLDS, _FEW_FOLDS = 4, 8
_FEW_ROWS = 2_000  # more folds for as few: a fit on nine tenths is more like the one on all
_KNOWN = 129  # quantiles


@dataclass(frozen=True)
class Rows:
    """Labelled rows; those of one group never stand on both sides of a split.

    Attributes:
        texts: the texts.
        labels: the name of each text's label.
        groups: a number for each text's group.
    """

    texts: Sequence[str]
    labels: Sequence[str]
    groups: Indices


class Scores(NamedTuple):
    """What heads that have not seen a row's group say of it; one value a row.

    Attributes:
        predicted: index of the best label.
        top: its probability.
        margin: its probability less that of the second.
        confidence: calibrated P(correct).
        known: rank of the row among the others by how much it looks like them.
    """

    predicted: Indices
    top: Column
    margin: Column
    confidence: Column
    known: Column


@dataclass(frozen=True)
class FittedHead:
    """A head with what is known of it.

    Attributes:
        head: the head.
        scores: of the rows that calibrated it, in their order.
        calibrated: indices of these rows: all, or those given as `calibration`.
        notes: what was chosen and measured, plain JSON.
    """

    head: Head
    scores: Scores
    calibrated: Indices
    notes: dict[str, Any]


def fit_head(
    rows: Rows,
    vectors: Matrix,
    *,
    seed: int,
    deadline: Callable[[], float] | None = None,
    report: Report = lambda _, __: None,
    calibration: Indices | None = None,
    own: Linear | None = None,
) -> FittedHead:
    """Fit and calibrate a head.

    Args:
        rows: the rows; at least two labels.
        vectors: their unit vectors by the encoder, shape (rows, dimensions).
        seed: of every random choice; the same seed gives the same numbers.
        deadline: returns the seconds that are left; at 0 the best so far is returned.
        report: called with "fitting" and the share that is done.
        calibration: indices of rows that the encoder has not seen; only they calibrate. None: all.
        own: the linear head that the encoder was fine-tuned with, on vectors; its labels are in ascending
            order. It is better than a new fit, because the rows that it learned from tell no errors.

    Raises:
        ValueError: there are fewer than two labels, or texts, labels, groups and vectors differ in number.
    """
    names, target = np.unique(np.asarray(rows.labels, dtype=object).astype(str), return_inverse=True)
    if len(names) < 2 or not len(rows.texts) == len(target) == len(rows.groups) == len(vectors):
        raise ValueError(
            f"{len(names)} labels, {len(rows.texts)} texts, {len(rows.groups)} groups, {len(vectors)} vectors"
        )
    labels = len(names)
    folds = _FEW_FOLDS if len(target) <= _FEW_ROWS else _FOLDS
    fold = make_folds(target, rows.groups, folds, seed)
    problem = Problem(target, labels, fold, deadline or (lambda: 1.0))
    chosen = np.arange(len(target)) if calibration is None else np.asarray(calibration, dtype=np.intp)
    with one_thread():
        linear = fit_linear(rows.texts, vectors, problem, chosen, lambda share: report("fitting", share), own)
        nearness = fit_nearness(vectors, target, labels)
        known_raw = _cross_nearness(vectors, target, labels, fold)[chosen]
    at = np.quantile(known_raw, np.linspace(0.0, 1.0, _KNOWN))
    known = np.interp(known_raw, at, np.linspace(0.0, 1.0, len(at)))
    chances = softmax(linear.logits)
    columns = signals(chances, known)
    predicted = chances.argmax(axis=1)
    confidence = fit_confidence(columns, predicted == target[chosen])
    head = Head.read(
        names.tolist(),
        {"version": VERSION, "confidence_weights": confidence.weights},
        linear.arrays | nearness | _curves(at, confidence),
    )
    report("fitting", 1.0)
    best = np.partition(chances, -2, axis=1)[:, -2:]
    scores = Scores(predicted, best[:, 1], best[:, 1] - best[:, 0], head.confidence(columns), known)
    return FittedHead(head, scores, chosen, {"folds": int(fold.max()) + 1, **linear.notes})


def _cross_nearness(vectors: Matrix, target: Indices, labels: int, fold: Indices) -> Column:
    out = np.zeros(len(target))
    for part in range(int(fold.max()) + 1):
        inside = fold != part
        arrays = fit_nearness(vectors[inside], target[inside], labels)
        reduced = (vectors[~inside] - arrays["centre"]) @ arrays["whitening"].T
        means = (arrays["means"] * arrays["mean_scales"][:, None])[np.unique(target[inside])]
        squares = np.square(reduced).sum(axis=1)[:, None] - 2.0 * reduced @ means.T
        out[~inside] = -np.sqrt(np.maximum((squares + np.square(means).sum(axis=1)).min(axis=1), 0.0))
    return out


def _curves(known_at: Column, confidence: Confidence) -> dict[str, npt.NDArray[Any]]:
    return {
        "known_at": known_at.astype(np.float32),
        "confidence_at": confidence.at.astype(np.float32),
        "confidence": confidence.value.astype(np.float32),
    }
