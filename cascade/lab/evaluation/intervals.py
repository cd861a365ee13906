"""Bootstrap intervals of everything that is a function of column means, all resamples at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Means = Mapping[str, Column]
RESAMPLES = 1000
_CELLS = 2_000_000  # rows × resamples that are drawn at once: 16 MB of counts


class Figure(NamedTuple):
    """A number with its 95 % interval; NaN where the rows cannot tell it."""

    value: float
    low: float
    high: float


def resampled(columns: Mapping[str, Column], *, resamples: int = RESAMPLES, seed: int = 0) -> Means:
    """Return the mean of each column in the sample itself (first) and in `resamples` bootstrap resamples.

    Args:
        columns: name → one number a row, or rows × points; no NaN.
        resamples: how many times rows are drawn with replacement (Efron 1979).
        seed: of the draws.

    Returns:
        name → array of shape (1 + resamples,) or (1 + resamples, points).
    """
    widths = {name: 1 if column.ndim == 1 else column.shape[1] for name, column in columns.items()}
    table = np.column_stack(list(columns.values())).astype(float)
    rows = len(table)
    means = np.empty((1 + resamples, table.shape[1]))
    means[0] = table.mean(axis=0)
    random = np.random.default_rng(seed)
    block = max(1, _CELLS // rows)
    for start in range(1, 1 + resamples, block):
        size = min(block, 1 + resamples - start)
        drawn = random.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        count = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        means[start : start + size] = count @ table / rows
    ends = np.cumsum(list(widths.values()))
    found = {}
    for (name, column), end in zip(columns.items(), ends, strict=True):
        part = means[:, end - widths[name] : end]
        found[name] = part[:, 0] if column.ndim == 1 else part
    return found


def figure(statistic: Callable[[Means], Column], means: Means) -> Figure:
    """Return `statistic` of the sample with its percentile interval; a resample may be unable to tell it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(means)
    known = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(known):
        return Figure(np.nan, np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Figure(float(values[0]), float(low), float(high))
