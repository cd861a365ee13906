"""Tests by betting that stay valid however often one looks.

A bettor starts with 1 and bets on each value against the claim "the mean is at most m". While the claim is
true, the wealth is a nonnegative supermartingale that starts at 1, so by Ville's inequality (1939) it ever
reaches 1/delta with probability at most delta. The bets follow Waudby-Smith and Ramdas (2010.09686, JRSS-B
2024): a value v changes the wealth by the factor 1 + b (v − m), where b is a fixed share of the greatest bet
that cannot lose everything; the wealth is the mean over several shares (a hedged bet), so that nobody has to
choose one. Fixed shares make it a function of how often each value came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)  # of the greatest bet
MAX_ROWS = 1_000_000  # more than that is never
_STEPS = 30  # of bisection

Counts = Mapping[float, float]  # value → how often it came


class Pairs(NamedTuple):
    """On how many rows a new model was worse than the old one (−1), as good (0), or better (1)."""

    worse: float = 0
    equal: float = 0
    better: float = 0

    @property
    def rows(self) -> float:
        """The number of rows."""
        return self.worse + self.equal + self.better

    @property
    def mean(self) -> float:
        """The mean difference; 0 without rows."""
        return (self.better - self.worse) / self.rows if self.rows else 0.0

    @property
    def counts(self) -> Counts:
        """Value → how often it came."""
        return {-1.0: self.worse, 0.0: self.equal, 1.0: self.better}

    def scaled(self, rows: float) -> Pairs:
        """Return `rows` rows with the same shares; all equal if there are none yet."""
        if not self.rows:
            return Pairs(equal=rows)
        return Pairs(*(count * rows / self.rows for count in self))


def evidence_above(counts: Counts, mean: float, low: float) -> float:
    """Return the logarithm of the wealth won against "the mean is at most `mean`".

    Args:
        counts: value → how often it came; the order does not matter.
        mean: what is claimed, more than `low`.
        low: the least value that can come.
    """
    return _log_wealth({value - mean: count for value, count in counts.items()}, mean - low)


def evidence_below(counts: Counts, mean: float, high: float) -> float:
    """Return the logarithm of the wealth won against "the mean is at least `mean`", at most `high`."""
    return _log_wealth({mean - value: count for value, count in counts.items()}, high - mean)


def not_worse(pairs: Pairs, epsilon: float) -> float:
    """Return the logarithm of the evidence that a new model is not worse by `epsilon` or more."""
    return evidence_above(pairs.counts, -epsilon, -1.0)


def worse(pairs: Pairs, epsilon: float) -> float:
    """Return the logarithm of the evidence that a new model is worse by more than `epsilon`."""
    return evidence_below(pairs.counts, -epsilon, 1.0)


def reached(log_evidence: float, delta: float) -> bool:
    """Return whether the evidence suffices at `delta`."""
    return log_evidence >= -math.log(delta)


def difference_interval(pairs: Pairs, delta: float) -> tuple[float, float]:
    """Return an interval that holds the mean difference at all times at once, at 1 − `delta`."""

    def above(mean: float) -> bool:
        return reached(evidence_above(pairs.counts, mean, -1.0), delta / 2)

    def below(mean: float) -> bool:
        return reached(evidence_below(pairs.counts, mean, 1.0), delta / 2)

    return _farthest(above, -1.0, 1.0), _farthest(below, 1.0, -1.0)


def _farthest(refuted: Callable[[float], bool], start: float, end: float) -> float:
    """Return the last mean from `start` on that is refuted: the evidence falls all the way to `end`."""
    for _ in range(_STEPS):
        middle = (start + end) / 2
        start, end = (middle, end) if refuted(middle) else (start, middle)
    return start


def rows_needed(pairs: Pairs, epsilon: float, delta: float) -> int | None:
    """Return how many more rows like these show that the new model is not worse; None if they never do."""

    def enough(more: float) -> bool:
        return reached(not_worse(pairs.scaled(pairs.rows + more), epsilon), delta)

    if not enough(MAX_ROWS):
        return None
    low, high = 0, MAX_ROWS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _log_wealth(stakes: Counts, greatest_loss: float) -> float:
    """Return the log of the mean wealth over `SHARES`, of stakes that lose at most `greatest_loss`."""
    logs = [
        sum(count * math.log1p(share / greatest_loss * stake) for stake, count in stakes.items())
        for share in SHARES
    ]
    most = max(logs)
    return most + math.log(sum(math.exp(each - most) for each in logs) / len(logs))
