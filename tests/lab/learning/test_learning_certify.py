"""A threshold is certified by rows that fitted nothing, or it is called uncertified; false ones are rare."""

from __future__ import annotations

import numpy as np

from cascade.lab.learning.certify import NEVER, Graded, judge, prospect
from cascade.policy.artifact import Goal
from cascade.policy.bounds import risk_upper, rows_needed

GOAL = Goal(kind="max_risk", value=0.05, delta=0.1)
NOTHING = Graded(np.zeros(0), np.zeros(0, dtype=bool))


def graded(rows: int, seed: int, accuracy: float = 0.9) -> Graded:
    """Calibrated confidences whose mean is about `accuracy`, and answers right as often as that."""
    random = np.random.default_rng(seed)
    confidence = random.beta(8 * accuracy, 8 * (1 - accuracy), rows).clip(0.001, 0.999)
    return Graded(confidence, random.random(rows) < confidence)


def test_a_certificate_counts_what_the_threshold_accepts() -> None:
    held_out = graded(600, 1)
    verdict = judge(graded(2000, 0), held_out, GOAL)
    assert verdict.refusal is None
    assert verdict.certificate is not None
    taken = held_out.confidence >= verdict.accept
    wrong = int((taken & ~held_out.correct).sum())
    assert (verdict.certificate.accepted, verdict.certificate.errors) == (taken.sum(), wrong)
    assert verdict.certificate.bound == risk_upper(wrong, int(taken.sum()), 0.1) <= 0.05
    assert verdict.accept == round(verdict.accept, 4)
    assert taken.mean() > 0.3


def test_without_held_out_rows_the_refusal_says_how_many_are_needed() -> None:
    verdict = judge(graded(300, 0), NOTHING, GOAL)
    assert verdict.certificate is None
    assert verdict.refusal is not None
    assert verdict.refusal.rows is not None
    assert verdict.refusal.rows >= (rows_needed(0.05, 0.1) or 0)
    assert "300 rows are too few to hold any out" in verdict.refusal.reason
    assert 0 < verdict.accept < NEVER


def test_too_few_held_out_rows_refuse_and_name_more_than_there_were() -> None:
    verdict = judge(graded(300, 0), graded(20, 1), GOAL)
    assert verdict.certificate is None
    assert verdict.refusal is not None
    assert verdict.refusal.rows is not None
    assert verdict.refusal.rows > 20
    assert "20 held-out rows do not support" in verdict.refusal.reason


def test_answers_that_are_always_wrong_accept_nothing_and_rows_do_not_help() -> None:
    wrong = Graded(np.linspace(0.1, 0.9, 200), np.zeros(200, dtype=bool))
    verdict = judge(wrong, wrong, GOAL)
    assert verdict.accept == NEVER
    assert verdict.refusal is not None
    assert verdict.refusal.rows is None
    assert "better labels or a larger expert" in verdict.refusal.reason


def test_false_certificates_are_rarer_than_delta() -> None:
    """Right answers have nothing to do with the confidence, and a promise just out of reach is asked for."""
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(100):
        fitting, held_out = (Graded(random.random(rows), random.random(rows) < 0.9) for rows in (300, 200))
        verdict = judge(fitting, held_out, Goal(kind="max_risk", value=0.099, delta=0.1))
        passed += verdict.certificate is not None
    assert passed <= 19  # 10 expected at most; three standard deviations


def test_more_rows_are_foreseen_to_certify_more() -> None:
    pilot = graded(2000, 0)
    shares = [prospect(pilot, rows, GOAL).worth for rows in (10, 60, 200, 1000)]
    assert shares[0] == 0.0
    assert shares[1:] == sorted(shares[1:])
    assert shares[-1] > 0.4
    assert prospect(NOTHING, 100, GOAL).worth == 0.0
