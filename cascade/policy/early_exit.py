"""Early exit: an upper bound of the score that an unfinished draft can still reach. Pure.

A score of `logprob` confidence is a statistic of the tokens' log-probabilities. Each token still to come has
at most log-probability 0 and at least entropy 0, and there are at most `max_tokens` in all, so the score of
the finished draft is bounded from above. Calibration does not fall with the score: where the bound's
confidence is below the threshold, no ending of the draft is accepted.
"""

from __future__ import annotations

import math
from typing import Protocol

from cascade.policy.calibrate import Curve
from cascade.records import Record

SHARES = {"min": 0.0, "p10": 0.10, "p25": 0.25, "p50": 0.50}
BOUNDED = (*SHARES, "mean", "entropy")  # a margin has no largest value
_SLACK = 1e-9  # of a score, for the order in which floats are summed


class Tokens(Protocol):
    """Statistics of the tokens that a draft has so far; `name` is logprob, margin or entropy, in nats."""

    count: int

    def mean(self, name: str = "logprob") -> float:
        """Return the mean of `name` over the tokens."""
        ...

    def quantile(self, share: float, name: str = "logprob") -> float:
        """Return the smallest value of `name` that at least `share` of the tokens do not exceed."""
        ...


def best_score(signal: str, tokens: Tokens, max_tokens: int) -> float:
    """Return an upper bound of the score that `signal` can have once the draft is finished, in [0, 1].

    Args:
        signal: one of `BOUNDED`; any other has the bound 1.
        tokens: the tokens so far.
        max_tokens: the most that the draft may have.
    """
    count = tokens.count
    if count == 0 or signal not in BOUNDED:
        return 1.0
    total = max(max_tokens, count)
    if signal == "mean":  # the sum is spread over as many tokens as there may be
        best = min(0.0, tokens.mean()) * count / total
    elif signal == "entropy":
        best = -max(0.0, tokens.mean("entropy")) * count / total
    else:
        best = _best_quantile(SHARES[signal], tokens, total)
    return min(1.0, math.exp(best) + _SLACK)


class EarlyExit(Record):
    """Stops a draft that can no longer reach a confidence of `accept`, however it ends.

    Plain data, so that it can be sent to the process where the draft is written.
    """

    signal: str
    accept: float
    calibration: Curve | None = None
    max_tokens: int

    def __call__(self, tokens: Tokens) -> bool:
        """Return whether a draft with these tokens so far can no longer be accepted."""
        bound = best_score(self.signal, tokens, self.max_tokens)
        return (self.calibration.apply(bound) if self.calibration is not None else bound) < self.accept


def _best_quantile(share: float, tokens: Tokens, total: int) -> float:
    """The quantile if every token to come has log-probability 0: those stand above all that are there."""
    rank = share * (total - 1)
    low = math.floor(rank)

    def ranked(index: int) -> float:
        """The value at `index` of the sorted log-probabilities of the finished draft."""
        return 0.0 if index >= tokens.count else min(0.0, tokens.quantile((index + 0.5) / tokens.count))

    return ranked(low) + (rank - low) * (ranked(low + 1) - ranked(low))
