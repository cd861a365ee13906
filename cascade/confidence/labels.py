"""Confidence from the distribution over a closed label set."""

from __future__ import annotations

import math

from cascade.models.base import Reply

_TOLERANCE = 1e-3  # how far a distribution's sum may be from 1 (32-bit sums over many labels)


def signals(reply: Reply) -> dict[str, float]:
    """Return what the label distribution says about the answered label; empty if it says nothing.

    top1: probability of the answer. margin: that minus the best other label's (negative if another label
    is likelier). entropy: 1 − H / log K over K labels, so 1 is certain and 0 is uniform.
    A distribution that is none (a NaN, a negative, a sum other than 1, fewer than two labels) says nothing,
    nor does one without the answer. Of a model that only looked for the best label (`label_scoring: top1`)
    there is just a lower bound of top1.
    """
    labels = reply.labels
    if labels is None and isinstance(best := reply.meta.get("top1"), dict):
        low = best.get("low")
        return {"top1": low} if isinstance(low, float) and 0.0 <= low <= 1.0 + _TOLERANCE else {}
    answer = reply.text.strip()
    if labels is None or len(labels) < 2 or answer not in labels:
        return {}
    values = list(labels.values())
    if not all(0.0 <= value <= 1.0 + _TOLERANCE for value in values) or abs(sum(values) - 1.0) > _TOLERANCE:
        return {}
    top1 = labels[answer]
    second = max(value for label, value in labels.items() if label != answer)
    entropy = -sum(value * math.log(value) for value in values if value > 0.0)
    return {"top1": top1, "margin": top1 - second, "entropy": max(0.0, 1.0 - entropy / math.log(len(values)))}
