"""Confidence from the log-probabilities of the generated tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from cascade.policy.early_exit import BOUNDED
from cascade.records import Estimate
from cascade.spec.kinds import Draft, Evidence, SignalConfidence

_QUANTILES = {"min": 0.0, "p10": 0.10, "p25": 0.25, "p50": 0.50}
_ROUNDING = 1e-4  # a log-probability may exceed 0 by this much (32-bit softmax)


class LogprobConfidence(SignalConfidence):
    """Confidence from the log-probabilities of the generated tokens."""

    by: Literal["logprob"]
    signal: Literal["mean", "min", "p10", "p25", "p50", "margin", "entropy"] = "p10"
    """Which statistic of the tokens is the score; quantiles are less biased by length than the mean."""

    @property
    def evidence(self) -> Evidence:
        """The tokens' log-probabilities; for the signal entropy, their entropies too."""
        return "entropy" if self.signal == "entropy" else "tokens"

    @property
    def early_exit_signal(self) -> str | None:
        """The signal, if the tokens so far bound it."""
        return self.signal if self.signal in BOUNDED else None

    def signals(self, draft: Draft) -> dict[str, float]:
        """Return statistics of the answer's tokens."""
        return signals(draft)

    def noise_range(self, estimate: Estimate, nats: float) -> tuple[float, float] | None:
        """Return the range of a signal that is exp of a log-probability."""
        if self.signal in ("margin", "entropy"):
            return None
        return estimate.score * math.exp(-nats), min(1.0, estimate.score * math.exp(nats))


def signals(reply: Draft) -> dict[str, float]:
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
    values_by_signal = {"mean": math.exp(sum(logprobs) / len(logprobs))}
    values_by_signal |= {name: math.exp(_quantile(logprobs, share)) for name, share in _QUANTILES.items()}
    margin = _mean([token.margin for token in tokens])
    entropy = _mean([token.entropy for token in tokens])
    if margin is not None:
        values_by_signal["margin"] = -math.expm1(-margin)
    if entropy is not None:
        values_by_signal["entropy"] = math.exp(-entropy)
    return values_by_signal


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Interpolate linearly between order statistics (type 7 of Hyndman and Fan 1996)."""
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if a value is missing, infinite, NaN or below 0."""
    known = [max(0.0, value) for value in values if value is not None and -_ROUNDING <= value < math.inf]
    return sum(known) / len(known) if len(known) == len(values) else None
