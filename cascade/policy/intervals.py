"""Intervals of shares, without NumPy."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """A two-sided interval."""

    low: float
    high: float


def wilson(successes: int, rows: int, level: float = 0.95) -> Interval:
    """Return the Wilson score interval of a share (Wilson 1927); NaN without rows."""
    if not 0 <= successes <= rows:
        raise ValueError(f"{successes} successes among {rows} rows; give at most as many as rows")
    if rows == 0:
        return Interval(math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    # Rounding must not exclude the share itself at the ends.
    return Interval(min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))
