"""Fit a head on the vectors of a frozen encoder, and calibrate it on scores of rows that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.head import VERSION, Head, signals, softmax
from cascade.lab.learning.calibrate import Confidence, fit_confidence, fit_temperature
from cascade.lab.learning.folds import make_folds
from cascade.lab.learning.logistic import Linear, fit_logistic
from cascade.lab.learning.unknown import fit_nearness

Column = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
Report = Callable[[str, float], None]
_PENALTIES = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
_FOLDS = 5
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
) -> FittedHead:
    """Fit and calibrate a head.

    Args:
        rows: the rows; at least two labels.
        vectors: their unit vectors by the encoder, shape (rows, dimensions).
        seed: of every random choice; the same seed gives the same numbers.
        deadline: returns the seconds that are left; at 0 the best so far is returned.
        report: called with "fitting" and the share that is done.
        calibration: indices of rows that the encoder has not seen; only they calibrate. None: all.

    Raises:
        ValueError: there are fewer than two labels, or texts, labels, groups and vectors differ in number.
    """
    names, target = np.unique(np.asarray(rows.labels, dtype=object).astype(str), return_inverse=True)
    if len(names) < 2 or not len(rows.texts) == len(target) == len(rows.groups) == len(vectors):
        raise ValueError(
            f"{len(names)} labels, {len(rows.texts)} texts, {len(rows.groups)} groups, {len(vectors)} vectors"
        )
    left = deadline or (lambda: 1.0)
    labels = len(names)
    fold = make_folds(target, rows.groups, _FOLDS, seed)
    penalty, logits = _cross_fit(vectors, target, labels, fold, left, report)
    chosen = np.arange(len(target)) if calibration is None else np.asarray(calibration, dtype=np.intp)
    temperature = fit_temperature(logits[chosen], target[chosen])
    final = fit_logistic(vectors, target, labels, penalty, seconds_left=left)
    report("fitting", 0.9)
    nearness = fit_nearness(vectors, target, labels)
    known_raw = _cross_nearness(vectors, target, labels, fold)
    at = np.quantile(known_raw[chosen], np.linspace(0.0, 1.0, _KNOWN))
    known = np.interp(known_raw[chosen], at, np.linspace(0.0, 1.0, len(at)))
    chances = softmax(logits[chosen] / np.float32(temperature))
    columns = signals(chances, known)
    predicted = chances.argmax(axis=1)
    confidence = fit_confidence(columns, predicted == target[chosen])
    head = Head.read(
        names.tolist(),
        {"version": VERSION, "confidence_weights": confidence.weights},
        _arrays(final, temperature, labels) | nearness | _curves(at, confidence),
    )
    report("fitting", 1.0)
    best = np.partition(chances, -2, axis=1)[:, -2:]
    scores = Scores(predicted, best[:, 1], best[:, 1] - best[:, 0], head.confidence(columns), known)
    notes = {"folds": int(fold.max()) + 1, "penalty": penalty, "temperature": temperature}
    return FittedHead(head, scores, chosen, notes)


def _cross_fit(
    vectors: Matrix, target: Indices, labels: int, fold: Indices, left: Callable[[], float], report: Report
) -> tuple[float, Matrix]:
    """Return the penalty of least cross-entropy and the logits of each row by a fit without its fold."""
    made: dict[float, Matrix] = {}
    loss: dict[float, float] = {}
    starts: dict[int, Linear] = {}
    folds = int(fold.max()) + 1
    for turn, penalty in enumerate(_PENALTIES):
        if made and not left():
            break
        made[penalty] = np.zeros((len(target), labels), np.float32)
        for part in range(folds):
            inside = fold != part
            starts[part] = fit_logistic(
                vectors[inside], target[inside], labels, penalty, start=starts.get(part), steps=40,
                seconds_left=left,
            )  # fmt: skip
            made[penalty][~inside] = starts[part].logits(vectors[~inside])
            report("fitting", 0.8 * (turn * folds + part + 1) / (folds * len(_PENALTIES)))
        chances = softmax(made[penalty] / np.float32(fit_temperature(made[penalty], target)))
        loss[penalty] = float(-np.log(np.maximum(chances[np.arange(len(target)), target], 1e-12)).mean())
        if len(loss) > 1 and loss[penalty] > min(loss.values()):
            break
    best = min(loss, key=lambda each: loss[each])
    return best, made[best]


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


def _arrays(final: Linear, temperature: float, labels: int) -> dict[str, npt.NDArray[Any]]:
    return {
        "weights": np.ascontiguousarray(final.weights.T / np.float32(temperature)),
        "bias": final.bias / np.float32(temperature),
        "ngram_keys": np.zeros(0, np.uint32),
        "ngram_idf": np.zeros(0, np.float32),
        "ngram_weights": np.zeros((0, labels), np.int8),
        "ngram_scales": np.ones(labels, np.float32),
    }


def _curves(known_at: Column, confidence: Confidence) -> dict[str, npt.NDArray[Any]]:
    return {
        "known_at": known_at.astype(np.float32),
        "confidence_at": confidence.at.astype(np.float32),
        "confidence": confidence.value.astype(np.float32),
    }
