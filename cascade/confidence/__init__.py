"""How good is the answer? Measured signals, one score, one calibrated probability.

A signal that was not measured is missing, never a default: no estimate, and the stage escalates.
Every signal is a share or a probability; every score lies in [0, 1] and grows with certainty.

Private: a plugin declares its settings with `cascade.spec.ConfidenceSettings`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cascade.models.base import Reply
from cascade.policy.calibrate import Calibration
from cascade.records import Call, Estimate
from cascade.spec.kinds import ConfidenceSettings, Measured


async def judge(
    config: ConfidenceSettings, prompt: str, calls: Sequence[Call], replies: Sequence[Reply | None]
) -> Measured:
    """Return which of a stage's calls can be judged, by index, and the signals of each.

    Args:
        config: the stage's confidence method.
        prompt: the request's text.
        calls: every call of the stage.
        replies: what each call got; None where it failed or was a gate's. An invalid answer counts as failed.

    Raises:
        Exception: whatever the method raises.
    """
    asked = [
        (index, reply if call.error is None and not call.invalid else None)
        for index, (call, reply) in enumerate(zip(calls, replies, strict=False))
        if call.role == "answer"
    ]
    measured = await config.judge(prompt, [reply for _, reply in asked])
    return [(asked[position][0], signals) for position, signals in measured]


def estimate(
    config: ConfidenceSettings, measured: Measured, calibration: Calibration | None
) -> Estimate | None:
    """Return the best draft and how good it is believed to be, or None if that was not measured.

    Of several drafts the most confident one is chosen, by agreement the majority's; the first of equals.

    Args:
        config: the stage's confidence method.
        measured: what `judge` has returned.
        calibration: the fitted map; without it confidence is the score, flagged as uncalibrated unless the
            method's score is calibrated itself.
            One that was fitted for another method or signal gives no estimate.
    """
    wanted = config.signal_name
    if calibration is not None and (calibration.by, calibration.signal) != (config.by, wanted):
        return None
    best: Estimate | None = None
    for index, signals in measured:
        score = signals.get(wanted, math.nan)
        if not math.isfinite(score):
            continue
        score = min(1.0, max(0.0, score))
        confidence = calibration.apply(score) if calibration else score
        if best is None or (confidence, score) > (best.confidence, best.score):
            best = Estimate(
                by=config.by,
                chosen=index,
                signals=dict(signals),
                score=score,
                confidence=confidence,
                calibrated=calibration is not None or config.score_is_calibrated,
            )
    return best
