"""Confidence from the distribution over a closed label set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from cascade.records import Estimate
from cascade.spec.kinds import Draft, Evidence, SignalConfidence

# Signals of a learned expert, and what they are called in `meta["expert"]` of a reply.
_OF_EXPERTS = {"expert": "confidence", "known": "known"}
_TOLERANCE = 1e-3  # how far a distribution's sum may be from 1 (32-bit sums over many labels)


class LabelsConfidence(SignalConfidence):
    """Confidence from the exact distribution over a closed label set."""

    by: Literal["labels"]
    signal: Literal["top1", "margin", "entropy", "expert", "known"] = "top1"
    """top1: probability of the best label; margin: best minus second; entropy: 1 − normalised entropy;
    expert: a learned expert's own calibrated P(correct); known: how much the text looks like its rows."""

    @property
    def evidence(self) -> Evidence:
        """A lower bound is enough for top1; the others need the whole distribution, or a learned expert."""
        if self.signal in _OF_EXPERTS:
            return "learned"
        return "top_label" if self.signal == "top1" else "labels"

    @property
    def score_is_calibrated(self) -> bool:
        """A learned expert's own confidence was calibrated on its rows when it was learned."""
        return self.signal == "expert"

    def signals(self, draft: Draft) -> dict[str, float]:
        """Return what the label distribution says about the answer."""
        return signals(draft)

    def lowest_score(self, label_counts: Sequence[int], drafts: int) -> float:
        """Return the probability of the best label if all are equally likely."""
        if self.signal != "top1" or 0 in label_counts:
            return 0.0
        return min((1 / count for count in label_counts), default=0.0)

    def noise_range(self, estimate: Estimate, nats: float) -> tuple[float, float] | None:
        """Return the range of top1 or margin; None for the others, which do not follow from the best two."""
        if self.signal == "top1":
            return _probability_range(estimate.score, nats)
        if self.signal != "margin":
            return None
        top = estimate.signals["top1"]
        first = _probability_range(top, nats)
        second = _probability_range(top - estimate.signals["margin"], nats)
        return max(0.0, first[0] - second[1]), max(0.0, first[1] - second[0])


def signals(reply: Draft) -> dict[str, float]:
    """Return what the label distribution says about the answered label; empty if it says nothing.

    top1: probability of the answer. margin: that minus the best other label's (negative if another label
    is likelier). entropy: 1 − H / log K over K labels, so 1 is certain and 0 is uniform.
    An invalid distribution (a NaN, a negative, a sum other than 1, fewer than two labels) gives no signals,
    and neither does one without the answer. A model that only searched for the best label
    (`label_scoring: top1`) reports a lower bound of top1. A learned expert adds expert, its calibrated
    P(correct), and known, how much the text looks like the rows that it was learned from.
    """
    labels = reply.labels
    if labels is None and isinstance(best := reply.meta.get("top1"), dict):
        low = best.get("low")
        return {"top1": low} if isinstance(low, float) and 0.0 <= low <= 1.0 + _TOLERANCE else {}
    if labels is None:  # a learned expert's JSON object has no labels
        return _of_expert(reply)
    answer = reply.text.strip()
    if len(labels) < 2 or answer not in labels:
        return {}
    values = list(labels.values())
    if not all(0.0 <= value <= 1.0 + _TOLERANCE for value in values) or abs(sum(values) - 1.0) > _TOLERANCE:
        return {}
    top1 = labels[answer]
    second = max(value for label, value in labels.items() if label != answer)
    entropy = -sum(value * math.log(value) for value in values if value > 0.0)
    measured = {"top1": top1, "margin": top1 - second}
    measured["entropy"] = max(0.0, 1.0 - entropy / math.log(len(values)))
    return measured | _of_expert(reply)


def _of_expert(reply: Draft) -> dict[str, float]:
    """Return what a learned expert says of its own answer; what is no share is left out."""
    said = reply.meta.get("expert")
    if not isinstance(said, Mapping):
        return {}
    found = {signal: said.get(key) for signal, key in _OF_EXPERTS.items()}
    return {name: value for name, value in found.items() if isinstance(value, float) and 0.0 <= value <= 1.0}


def _probability_range(value: float, nats: float) -> tuple[float, float]:
    """Return the range of a label's probability if its logit and all others move apart by `nats`."""
    up = math.exp(2 * nats)
    value = min(1.0, max(0.0, value))
    rest = 1.0 - value
    return value / (value + rest * up), value * up / (value * up + rest)
