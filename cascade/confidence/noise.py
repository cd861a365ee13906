"""What numerical noise in a local model's log-probabilities does to a confidence."""

from __future__ import annotations

from cascade.policy.calibrate import Calibration
from cascade.records import Call, Estimate
from cascade.spec.kinds import ConfidenceSettings


def bounds(
    config: ConfidenceSettings, estimate: Estimate, call: Call, calibration: Calibration | None
) -> tuple[float, float] | None:
    """Return the lowest and the highest confidence if each log-probability moves by the call's noise.

    The call's `meta["noise"]` is in nats. None where it is unknown or zero, or where the signal does not
    follow from single log-probabilities in a simple way (entropy, and the margin of free text).
    """
    nats = call.meta.get("noise")
    if not isinstance(nats, float) or nats <= 0.0:
        return None
    scores = config.noise_range(estimate, nats)
    if scores is None or calibration is None:
        return scores
    return calibration.apply(scores[0]), calibration.apply(scores[1])
