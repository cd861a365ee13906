"""Metrics of answers and of their confidence, with 95 % bootstrap intervals.

`confidence` and `correct` are columns with one value per row. Rows of equal confidence count as if in random
order (their expectation), so the order of the rows never changes a result. A metric that the rows cannot tell
(no rows, only one class) is NaN, never a default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cascade.policy.intervals import Interval

Column = NDArray[np.float64]
Means = Mapping[str, Column]
BINS = 15
RESAMPLES = 1000
_MAX_CELLS = 2_000_000  # rows × resamples that are drawn at once: 16 MB of counts


def accuracy(correct: ArrayLike) -> float:
    """Return the share of right answers."""
    column = np.asarray(correct, dtype=float)
    return float(column.mean()) if column.size else math.nan


def auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return P(a right answer has more confidence than a wrong one), ties counting half (Mann–Whitney)."""
    score, right = _columns(confidence, correct)
    positive = right.sum()
    negative = len(right) - positive
    if not positive or not negative:
        return math.nan
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # the mean rank of each group of ties
    return float(((rank[inverse] * right).sum() - positive * (positive + 1) / 2) / (positive * negative))


def ece(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Return the expected calibration error: |mean confidence − accuracy|, averaged over bins of equal mass.

    Rows are sorted by confidence and cut into `bins` parts whose sizes differ by at most one (Nguyen and
    O'Connor 2015; Nixon et al. 2019). Each part is weighted by its size.
    """
    score, right = _columns(confidence, correct)
    if not len(score):
        return math.nan
    order = np.argsort(score, kind="stable")
    gap = score[order] - _expected(score, right)[order]
    parts = np.array_split(gap, min(bins, len(gap)))
    return float(sum(abs(part.sum()) for part in parts) / len(gap))


def brier(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean squared difference between confidence and outcome (Brier 1950)."""
    score, right = _columns(confidence, correct)
    return float(np.mean((score - right) ** 2)) if len(score) else math.nan


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean selective risk over all coverages (Geifman and El-Yaniv 2017)."""
    score, right = _columns(confidence, correct)
    if not len(score):
        return math.nan
    wrong = 1.0 - _expected(score, right)[np.argsort(-score, kind="stable")]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def coverage_at_risk(confidence: ArrayLike, correct: ArrayLike, risk: float) -> float:
    """Return the largest share of rows that a threshold can accept with at most `risk` wrong among them.

    The threshold is chosen on these very rows: this describes the confidence and promises nothing for others.
    """
    score, right = _columns(confidence, correct)
    if not len(score):
        return math.nan
    _, inverse, count = np.unique(-score, return_inverse=True, return_counts=True)
    accepted = np.cumsum(count)
    wrong = np.cumsum(np.bincount(inverse, weights=1.0 - right))
    fits = np.flatnonzero(wrong <= risk * accepted + 1e-9)
    return float(accepted[fits[-1]] / len(score)) if len(fits) else 0.0


def bootstrap(
    statistic: Callable[..., float],
    *columns: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the percentile bootstrap interval of `statistic(*columns)` (Efron 1979).

    Rows are drawn with replacement. Resamples that cannot tell the statistic (NaN) are left out; the interval
    is NaN if none can.
    """
    arrays = [np.asarray(column) for column in columns]
    rows = len(arrays[0]) if arrays else 0
    if any(len(array) != rows for array in arrays):
        raise ValueError(
            f"columns have {[len(array) for array in arrays]} rows; give columns of equal length"
        )
    if rows == 0:
        return Interval(math.nan, math.nan)
    random = np.random.default_rng(seed)
    draws = (random.integers(rows, size=rows) for _ in range(resamples))
    values = np.array([statistic(*(array[draw] for array in arrays)) for draw in draws])
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


class Figure(NamedTuple):
    """A number with its 95 % interval, NaN if the rows cannot tell it."""

    value: float
    low: float
    high: float


def resampled(columns: Mapping[str, Column], *, resamples: int = RESAMPLES, seed: int = 0) -> Means:
    """Return the mean of each column in the sample itself (first) and in bootstrap resamples.

    Args:
        columns: name → array of shape (rows,) or (rows, points), without NaN.
        resamples: how many times the rows are drawn with replacement (Efron 1979).
        seed: seed of the draws.

    Returns:
        name → array of shape (1 + resamples,) or (1 + resamples, points).
    """
    widths = {name: 1 if column.ndim == 1 else column.shape[1] for name, column in columns.items()}
    table = np.column_stack(list(columns.values())).astype(float)
    rows = len(table)
    means = np.empty((1 + resamples, table.shape[1]))
    means[0] = table.mean(axis=0)
    random = np.random.default_rng(seed)
    block = max(1, _MAX_CELLS // rows)
    for start in range(1, 1 + resamples, block):
        size = min(block, 1 + resamples - start)
        drawn = random.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        count = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        means[start : start + size] = count @ table / rows
    ends = np.cumsum(list(widths.values()))
    by_name = {}
    for (name, column), end in zip(columns.items(), ends, strict=True):
        part = means[:, end - widths[name] : end]
        by_name[name] = part[:, 0] if column.ndim == 1 else part
    return by_name


def figure(statistic: Callable[[Means], Column], means: Means) -> Figure:
    """Return `statistic` of the sample with its percentile interval, over the resamples that can tell it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(means)
    known = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(known):
        return Figure(np.nan, np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Figure(float(values[0]), float(low), float(high))


def _columns(confidence: ArrayLike, correct: ArrayLike) -> tuple[Column, Column]:
    score, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if score.ndim != 1 or score.shape != right.shape:
        raise ValueError(
            f"confidence has shape {score.shape} and correct {right.shape}; give one of each per row"
        )
    if np.isnan(score).any():
        raise ValueError("a confidence is NaN; leave out rows without an estimate")
    return score, right


def _expected(score: Column, right: Column) -> Column:
    """Replace each outcome by the mean over the rows with the same score."""
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    mean: Column = np.bincount(inverse, weights=right) / count
    return mean[inverse]
