"""Finite-sample promises: exact bounds on held-out rows, and how many rows a promise needs.

Rows must be independent draws of what the policy will see, and must not have fitted any score or threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from cascade.policy.table import Column

_CELLS = (16, 200)  # of the nuisance interval: few are quick and enough where the answer is clear
_GAMMA = 0.1  # share of delta spent on the nuisance interval
_MAX_ROWS = 10_000_000


def risk_upper(errors: int, rows: int, delta: float) -> float:
    """Upper confidence bound of an error rate, exact at level 1 − `delta` (Clopper and Pearson 1934).

    1 without rows: nothing is known.

    Raises:
        ValueError: `errors` is not between 0 and `rows`, or `delta` is not between 0 and 1.
    """
    from scipy.special import betainccinv

    if not 0 <= errors <= rows:
        raise ValueError(f"{errors} errors among {rows} rows; give at most as many as rows")
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta is {delta}; give a number between 0 and 1")
    return 1.0 if errors == rows else float(betainccinv(errors + 1.0, rows - errors, delta))


def rows_needed(alpha: float, delta: float, risk: float = 0.0) -> int | None:
    """Return how many accepted rows would support "at most `alpha` wrong" if `risk` of them are wrong.

    None if no number would: `risk` is not below `alpha`, or so close that it takes more than ten million.
    """
    if risk >= alpha:
        return None

    def enough(rows: int) -> bool:
        return risk_upper(min(rows, math.ceil(risk * rows - 1e-9)), rows, delta) <= alpha

    high = 1
    while not enough(high):
        high *= 2
        if high > _MAX_ROWS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def loss_p_value(losses: int, gains: int, rows: int, epsilon: float, delta: float) -> float:
    """Exact p-value of "this policy loses `epsilon` or more against the top model", on paired rows.

    Of `rows` rows, the policy alone was wrong on `losses` and alone right on `gains`; the statistic is their
    difference. The unknown rate of disagreement is a nuisance: the p-value is the largest over an exact
    interval for it, plus the chance that the interval misses (Berger and Boos 1994). The interval is cut into
    cells; in each, the least chance of a loss and the largest of a gain bound the p-value from above, since
    moving probability from loss to gain can only lower the statistic. So no point between a grid's is missed.

    Raises:
        ValueError: there are more disagreements than rows.
    """
    if losses < 0 or gains < 0 or losses + gains > rows:
        raise ValueError(f"{losses} losses and {gains} gains among {rows} rows; give at most as many as rows")
    gamma = _GAMMA * delta
    apart = losses + gains
    high = risk_upper(apart, rows, gamma / 2) if rows else 1.0
    low = 1.0 - risk_upper(rows - apart, rows, gamma / 2) if rows else 0.0
    low = max(low, abs(epsilon))  # a loss of epsilon needs at least so much disagreement
    if low > high:
        return gamma
    value = 1.0
    for cells in _CELLS:
        edges = np.linspace(low, high, cells + 1)
        loss = np.clip((edges[:-1] + epsilon) / 2, 0.0, 1.0)
        gain = np.clip((edges[1:] - epsilon) / 2, 0.0, 1.0 - loss)
        value = min(value, gamma + float(_difference_cdf(losses - gains, rows, loss, gain).max()))
        if value <= delta:
            break
    return value


def loss_upper(losses: int, gains: int, rows: int, delta: float) -> float:
    """Upper confidence bound of the loss, at level 1 − `delta`: the test above, inverted."""
    low, high = (losses - gains) / rows if rows else -1.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (
            (low, middle) if loss_p_value(losses, gains, rows, middle, delta) <= delta else (middle, high)
        )
    return high


def fixed_sequence(passes: Iterable[bool]) -> int:
    """Return how many tests pass before the first failure; later ones do not count.

    Ordered beforehand from the safest to the boldest setting, each at the full level, the chance that any
    setting passes wrongly stays at that level (Maurer, Hothorn and Lehmacher 1995).
    """
    count = 0
    for passed in passes:
        if not passed:
            break
        count += 1
    return count


def _difference_cdf(max_difference: int, rows: int, loss: Column, gain: Column) -> Column:
    """Return P(losses − gains ≤ `max_difference`) per pair of chances; terms left out count as 1."""
    from scipy.stats import binom

    apart = loss + gain
    centre, spread = rows * apart, np.sqrt(rows * apart * (1 - apart))
    start = max(0, math.floor((centre - 7 * spread).min()) - 20)
    stop = min(rows, math.ceil((centre + 7 * spread).max()) + 20)
    number = np.arange(start, stop + 1)[:, None]
    weight = binom.pmf(number, rows, apart)
    share = np.divide(loss, apart, out=np.ones_like(loss), where=apart > 0)
    below = binom.cdf(np.floor((number + max_difference) / 2), number, share)
    left_out = np.clip(1.0 - weight.sum(axis=0), 0.0, 1.0)
    return np.asarray((weight * below).sum(axis=0) + left_out)
