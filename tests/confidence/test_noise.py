"""A decision is marked as marginal exactly where the measured noise of the model could have turned it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.confidence.agreement import AgreementConfidence
from cascade.confidence.labels import LabelsConfidence
from cascade.confidence.logprob import LogprobConfidence
from cascade.confidence.noise import bounds
from cascade.policy.calibrate import Calibration
from cascade.policy.decide import mark_marginal
from cascade.records import Call, Decision, Estimate


def call(noise: float | None = 0.06) -> Call:
    return Call(model="m", tier="haiku", text="a", meta={} if noise is None else {"noise": noise})


def estimate(score: float, **signals: float) -> Estimate:
    return Estimate(by="labels", chosen=0, signals=signals or {"top1": score}, score=score, confidence=score)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=6), st.floats(0.001, 0.3), st.integers(0, 1000))
def test_no_noise_of_that_size_leaves_the_bounds(logits: list[float], nats: float, seed: int) -> None:
    def softmax(values: np.ndarray) -> np.ndarray:
        weight = np.exp(values - values.max())
        return np.asarray(weight / weight.sum())

    plain = np.array(logits)
    found = softmax(plain)
    top = int(found.argmax())
    second = float(np.delete(found, top).max())
    moved = softmax(plain + np.random.default_rng(seed).uniform(-nats, nats, len(plain)))
    signals = {"top1": float(found[top]), "margin": float(found[top] - second)}
    config = LabelsConfidence(by="labels")
    low, high = bounds(config, estimate(signals["top1"], **signals), call(nats), None) or (0.0, 0.0)
    assert low - 1e-9 <= moved[top] <= high + 1e-9
    config = LabelsConfidence(by="labels", signal="margin")
    low, high = bounds(config, estimate(signals["margin"], **signals), call(nats), None) or (0.0, 0.0)
    assert low - 1e-9 <= max(0.0, moved[top] - np.delete(moved, top).max()) <= high + 1e-9


def test_a_log_probability_moves_by_the_noise_itself() -> None:
    found = bounds(LogprobConfidence(by="logprob", signal="min"), estimate(0.5), call(0.1), None)
    assert found == pytest.approx((0.5 * math.exp(-0.1), 0.5 * math.exp(0.1)))


def test_the_calibration_is_applied_to_both_ends() -> None:
    calibration = Calibration(
        method="isotonic", x=(0.2, 0.8), y=(0.1, 0.9), by="labels", signal="top1", rows=9, accuracy=0.5,
        auroc=0.5, ece=0.0, brier=0.2, data_sha256="0" * 64, model_fingerprint="0" * 64, fitted="2026-01-01",
    )  # fmt: skip
    low, high = bounds(LabelsConfidence(by="labels"), estimate(0.5), call(), calibration) or (0.0, 0.0)
    assert low == calibration.apply(0.5 / (0.5 + 0.5 * math.exp(0.12)))
    assert high == calibration.apply(0.5 * math.exp(0.12) / (0.5 * math.exp(0.12) + 0.5))


@pytest.mark.parametrize("noise", [None, 0.0])
def test_without_known_noise_nothing_is_marginal(noise: float | None) -> None:
    assert bounds(LabelsConfidence(by="labels"), estimate(0.5), call(noise), None) is None


def test_signals_that_are_no_single_log_probability_have_no_bounds() -> None:
    assert bounds(LabelsConfidence(by="labels", signal="entropy"), estimate(0.5), call(), None) is None
    assert bounds(AgreementConfidence(by="agreement"), estimate(0.5), call(), None) is None


def test_a_decision_is_marked_where_the_threshold_lies_in_between() -> None:
    above = Decision(action="accept", rule="confident", threshold=0.5)
    below = Decision(action="escalate", rule="below_threshold", threshold=0.5, to="next")
    assert mark_marginal(above, (0.48, 0.52)).marginal
    assert mark_marginal(below, (0.45, 0.5)).marginal
    assert not mark_marginal(above, (0.5, 0.6)).marginal
    assert not mark_marginal(below, (0.4, 0.49)).marginal
    assert not mark_marginal(above, None).marginal
    assert not mark_marginal(Decision(action="accept", rule="unchecked"), (0.0, 1.0)).marginal
