"""Confidence from the log-probabilities of the generated tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cascade.models.base import Reply

_QUANTILES = {"min": 0.0, "p10": 0.10, "p25": 0.25, "p50": 0.50}
_ROUNDING = 1e-4  # a log-probability may exceed 0 by this much (32-bit softmax)


def signals(reply: Reply) -> dict[str, float]:
    """Return statistics of the answer's tokens, each in [0, 1]; empty if a log-probability is not valid.

    mean: exp of the mean log-probability. min, p10, p25, p50: exp of that quantile of the log-probabilities,
    which depends less on length than the mean does (arXiv 2404.10136). margin: 1 − exp(−mean margin) and
    entropy: exp(−mean entropy), both only where every token reports them.
    """
    tokens = reply.tokens
    logprobs = [token.logprob for token in tokens]
    if not logprobs or not all(-math.inf < value <= _ROUNDING for value in logprobs):
        return {}
    logprobs = sorted(min(0.0, value) for value in logprobs)
    found = {"mean": math.exp(sum(logprobs) / len(logprobs))}
    found |= {name: math.exp(_quantile(logprobs, share)) for name, share in _QUANTILES.items()}
    margin = _mean([token.margin for token in tokens])
    entropy = _mean([token.entropy for token in tokens])
    if margin is not None:
        found["margin"] = -math.expm1(-margin)
    if entropy is not None:
        found["entropy"] = math.exp(-entropy)
    return found


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics (type 7 of Hyndman and Fan 1996)."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None if a value is missing, infinite, NaN or below 0."""
    known = [max(0.0, value) for value in values if value is not None and -_ROUNDING <= value < math.inf]
    return sum(known) / len(known) if len(known) == len(values) else None
