"""How well a score routes between a weak and a strong model: RouteLLM's protocol, and the error–cost curve.

The protocol is that of Ong et al. 2024 (arXiv 2406.18665) as their code runs it: thresholds are the score's
quantiles at equal steps, the two ends included, so that 11 points cut the rows into ten parts; cost is the
share of rows sent to the strong model; areas are trapezoids. Curves are arrays of shape (…, points): leading
axes are bootstrap resamples, and every function works on all of them at once.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Curve = NDArray[np.float64]
POINTS = 11


def escalated(score: ArrayLike, points: int = POINTS) -> NDArray[np.bool_]:
    """Return which rows go to the strong model at each threshold: rows × points, from none to all.

    Args:
        score: how strongly each row needs the strong model; NaN (not measured) needs it above all.
        points: how many quantiles of the score are thresholds.

    Raises:
        ValueError: there are no rows, or fewer than two points.
    """
    column = np.asarray(score, dtype=float)
    if column.ndim != 1 or not column.size or points < 2:
        raise ValueError(
            f"score has shape {column.shape} and there are {points} points; give rows and 2 points"
        )
    # Ranks select the same rows as the scores do, and do not mind infinities.
    _, rank = np.unique(np.where(np.isnan(column), np.inf, column), return_inverse=True)
    # What reaches an interpolated quantile is what reaches the next order statistic, in whole numbers.
    steps = np.arange(points - 1, -1, -1) * (len(rank) - 1)
    chosen = rank[:, None] >= np.sort(rank)[-(-steps // (points - 1))]
    chosen[:, 0] = False  # at the highest threshold only what exceeds it would go: nothing
    return np.asarray(chosen)


def sweep(score: ArrayLike, weak: ArrayLike, strong: ArrayLike, points: int = POINTS) -> tuple[Curve, Curve]:
    """Return the strong-call share and the mean quality at each threshold.

    Args:
        score: how strongly each row needs the strong model.
        weak: quality of the weak model's answers, 0 to 1.
        strong: quality of the strong model's answers.
        points: how many thresholds.
    """
    chosen = escalated(score, points)
    quality = np.where(chosen, np.asarray(strong, float)[:, None], np.asarray(weak, float)[:, None])
    return chosen.mean(axis=0), quality.mean(axis=0)


def apgr(score: ArrayLike, weak: ArrayLike, strong: ArrayLike, points: int = POINTS) -> float:
    """Average performance gap recovered: 0 is the weak model alone, 1 the strong one, 0.5 a random router.

    The mean over strong-call shares of (quality − weak) / (strong − weak); NaN where strong is no better.
    """
    share, quality = sweep(score, weak, strong, points)
    return float(
        gap_recovered(share, quality, np.asarray(weak, float).mean(), np.asarray(strong, float).mean())
    )


def cpt(score: ArrayLike, weak: ArrayLike, strong: ArrayLike, level: float, points: int = POINTS) -> float:
    """Call-performance threshold: the smallest strong-call share that recovers `level` of the gap."""
    share, quality = sweep(score, weak, strong, points)
    return float(
        calls_needed(share, quality, np.asarray(weak, float).mean(), np.asarray(strong, float).mean(), level)
    )


def gap_recovered(share: ArrayLike, quality: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> Curve:
    """APGR of curves: ∫(quality − weak) d share / ∫(strong − weak) d share by trapezoids.

    Args:
        share: strong-call shares, ascending; shape (…, points).
        quality: mean quality at each; same shape.
        weak: the weak model's mean quality; shape (…).
        strong: the strong model's.
    """
    share, quality = np.asarray(share, float), np.asarray(quality, float)
    low, gap = np.asarray(weak, float), np.asarray(strong, float) - np.asarray(weak, float)
    area = np.trapezoid(quality - low[..., None], share, axis=-1)
    width = share[..., -1] - share[..., 0]
    whole = np.where((gap > 0) & (width > 0), gap * width, np.nan)
    return np.asarray(area / whole)


def calls_needed(
    share: ArrayLike, quality: ArrayLike, weak: ArrayLike, strong: ArrayLike, level: float
) -> Curve:
    """Return the CPT of curves: the smallest share at which the curve reaches weak + level · gap.

    The curve is linear between its points. The first crossing counts, so the curve need not be monotone (the
    reference code interpolates as if it were). NaN where strong is no better than weak, or where the curve
    never gets there.
    """
    share, quality = np.asarray(share, float), np.asarray(quality, float)
    low, gap = np.asarray(weak, float), np.asarray(strong, float) - np.asarray(weak, float)
    # Means of the same rows, summed in another order, may differ by rounding.
    target = (low + level * gap)[..., None] - 1e-12
    reached = quality >= target
    after = np.argmax(reached, axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    y0, y1 = np.take_along_axis(quality, before, -1), np.take_along_axis(quality, after, -1)
    x0, x1 = np.take_along_axis(share, before, -1), np.take_along_axis(share, after, -1)
    part = np.where(y1 > y0, (target - y0) / np.where(y1 > y0, y1 - y0, 1.0), 1.0)
    crossing = (x0 + np.clip(part, 0.0, 1.0) * (x1 - x0))[..., 0]
    return np.asarray(np.where(reached.any(axis=-1) & (gap > 0), crossing, math.nan))


def error_cost_area(cost: ArrayLike, error: ArrayLike, max_cost: ArrayLike) -> Curve:
    """Return the mean error over the budget: the area under the error–cost curve, divided by its width.

    The curve is linear between its points and runs from its cheapest point to `max_cost`, the mean cost of
    the strong model alone: nobody pays more than that for a cascade. Beyond its last point it stays level.
    Less is better. It is the measure of Zellinger and Thomson 2025 (arXiv 2501.09345), here with the width
    divided out, so that the unit is an error rate. NaN where the cheapest point costs as much as `max_cost`.

    Args:
        cost: mean cost at each point, ascending; shape (…, points).
        error: 1 − mean quality at each; same shape.
        max_cost: mean cost of the strong model alone; shape (…).
    """
    cost, error = np.asarray(cost, float), np.asarray(error, float)
    max_cost = np.asarray(max_cost, float)[..., None]
    x0, x1, y0, y1 = cost[..., :-1], cost[..., 1:], error[..., :-1], error[..., 1:]
    step = x1 - x0
    part = np.clip((max_cost - x0) / np.where(step > 0, step, 1.0), 0.0, 1.0)
    area = (step * part * (y0 + (y1 - y0) * part / 2)).sum(axis=-1)
    area = area + np.maximum(0.0, max_cost - cost[..., -1:])[..., 0] * error[..., -1]
    width = max_cost[..., 0] - cost[..., 0]
    return np.asarray(np.where(width > 0, area / np.where(width > 0, width, 1.0), math.nan))
