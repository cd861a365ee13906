"""Calibration from cross-fitted scores: a temperature, then P(correct) by a logistic model and a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.head import softmax

Column = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
_FLOOR = 0.05  # of the first view's weight
_TEMPERATURES = (1e-3, 1e2)
_PRIOR_ROWS = 4.0  # weight of the prior on the logistic model's slopes, in rows
_ISOTONIC_ERRORS = 100  # fewer cannot shape a curve
_BIN_ERRORS = 10  # about as many make a step of the curve
_CURVE = 65  # knots


class Confidence(NamedTuple):
    """`interp(weights[0] + columns @ weights[1:], at, value)`."""

    weights: list[float]
    at: Column
    value: Column


def fit_temperature(logits: Matrix, target: Indices) -> float:
    """Return the temperature of least cross-entropy (C. Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(target))

    def loss(log: float) -> float:
        chances = softmax(logits / np.float32(np.exp(log)))
        return float(-np.mean(np.log(np.maximum(chances[rows, target], 1e-12))))

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def fit_blend(views: Sequence[Matrix], target: Indices) -> list[float]:
    """Return what to multiply each view's logits with before they are added up, none below 0.

    Cross-entropy is least. This is a logarithmic opinion pool with a temperature in it (T. Heskes 1998).
    """
    from scipy.optimize import minimize

    rows = np.arange(len(target))

    def loss(point: Column) -> tuple[float, Column]:
        logits = sum(np.float32(each) * view for each, view in zip(point, views, strict=True))
        chances = softmax(np.asarray(logits))
        value = -float(np.log(np.maximum(chances[rows, target], 1e-12)).mean())
        slopes = [float((np.einsum("ij,ij->i", chances, view) - view[rows, target]).mean()) for view in views]
        return value, np.array(slopes)

    start = np.full(len(views), 1.0 / len(views))
    # Where each label is one group, no fit has seen the label it is asked for, and scores say nothing.
    bounds = [(_FLOOR, 100.0)] + [(0.0, 100.0)] * (len(views) - 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return [float(each) for each in found.x]


def fit_confidence(columns: Column, correct: npt.NDArray[np.bool_]) -> Confidence:
    """Return P(correct) as a function of signals.

    The logistic model's slopes are not negative and shrink towards those of the first column alone, which is
    the log-odds of the best label's own probability. Where there are enough errors, an isotonic regression of
    the outcome on the model's score replaces its S-curve.
    """
    weights = _logistic(columns, correct)
    score = columns @ weights[1:] + weights[0]
    at = np.unique(np.quantile(score, np.linspace(0.0, 1.0, _CURVE)))
    value = 1.0 / (1.0 + np.exp(-at))
    if min(int(correct.sum()), int((~correct).sum())) >= _ISOTONIC_ERRORS:
        at, value = _curve(score, correct)
    return Confidence([float(each) for each in weights], at, value)


def _logistic(columns: Column, correct: npt.NDArray[np.bool_]) -> Column:
    from scipy.optimize import minimize

    prior = np.zeros(columns.shape[1] + 1)
    prior[1] = 1.0
    sign = np.where(correct, 1.0, -1.0)
    scale = np.concatenate([[0.1], np.maximum(columns.std(axis=0), 1e-3)])

    def loss(point: Column) -> tuple[float, Column]:
        score = sign * (point[0] + columns @ point[1:])
        pull = _PRIOR_ROWS * scale**2 * (point - prior)
        slope = -sign / (1.0 + np.exp(np.minimum(score, 500.0)))
        own = np.concatenate([[slope.sum()], slope @ columns])
        return float(np.logaddexp(0.0, -score).sum() + 0.5 * pull @ (point - prior)), own + pull

    bounds = [(None, None)] + [(0.0, None)] * columns.shape[1]
    return np.asarray(minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds).x, dtype=np.float64)


def _curve(score: Column, correct: npt.NDArray[np.bool_]) -> tuple[Column, Column]:
    """Return knots of an isotonic regression over bins that have some errors each."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(score, kind="stable")
    wrong = np.cumsum(~correct[order])
    right = np.cumsum(correct[order])
    step = np.minimum(wrong, right) // _BIN_ERRORS
    bins = np.searchsorted(np.unique(step), step)
    size = np.bincount(bins).astype(np.float64)
    centre = np.bincount(bins, score[order]) / size
    share = (np.bincount(bins, correct[order].astype(np.float64)) + 0.5) / (size + 1.0)
    value = np.asarray(isotonic_regression(share, weights=size).x, dtype=np.float64)
    at, first = np.unique(centre, return_index=True)
    return at, value[first]
