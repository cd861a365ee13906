"""What numerical noise in a local model's log-probabilities does to a confidence."""

from __future__ import annotations

import math

from cascade.policy.calibrate import Calibration
from cascade.records import Call, Estimate
from cascade.spec.schema import ConfidenceConfig, LabelsConfidence, LogprobConfidence

_SCALED = frozenset({"mean", "min", "p10", "p25", "p50"})  # each is exp of a log-probability


def bounds(
    config: ConfidenceConfig, estimate: Estimate, call: Call, calibration: Calibration | None
) -> tuple[float, float] | None:
    """Return the least and the largest confidence if each log-probability moves by the call's noise.

    The call's `meta["noise"]` is in nats. None where it is unknown or zero, or where the signal does not
    follow from single log-probabilities in a simple way (entropy, and the margin of free text).
    """
    nats = call.meta.get("noise")
    if not isinstance(nats, float) or nats <= 0.0:
        return None
    scores: tuple[float, float] | None = None
    if isinstance(config, LogprobConfidence) and config.signal in _SCALED:
        scores = estimate.score * math.exp(-nats), min(1.0, estimate.score * math.exp(nats))
    elif isinstance(config, LabelsConfidence) and config.signal == "top1":
        scores = _probability(estimate.score, nats)
    elif isinstance(config, LabelsConfidence) and config.signal == "margin":
        top = estimate.signals["top1"]
        first, second = _probability(top, nats), _probability(top - estimate.signals["margin"], nats)
        scores = max(0.0, first[0] - second[1]), max(0.0, first[1] - second[0])
    if scores is None or calibration is None:
        return scores
    return calibration.apply(scores[0]), calibration.apply(scores[1])


def _probability(value: float, nats: float) -> tuple[float, float]:
    """The range of a label's probability if its logit and all others' move by `nats` against each other."""
    up = math.exp(2 * nats)
    value = min(1.0, max(0.0, value))
    rest = 1.0 - value
    return value / (value + rest * up), value * up / (value * up + rest)
