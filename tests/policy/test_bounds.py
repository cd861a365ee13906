"""The bounds hold, equal their published forms, and refuse what rows cannot support."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from cascade.policy.bounds import fixed_sequence, loss_p_value, loss_upper, risk_upper, rows_needed

DELTAS = st.floats(0.001, 0.5)


@given(rows=st.integers(1, 5000), share=st.floats(0, 1), delta=DELTAS)
def test_the_risk_bound_is_clopper_and_pearsons(rows: int, share: float, delta: float) -> None:
    errors = min(rows - 1, int(share * rows))
    assert risk_upper(errors, rows, delta) == pytest.approx(
        beta.ppf(1 - delta, errors + 1, rows - errors), abs=1e-12
    )


@given(rows=st.integers(1, 60), risk=st.floats(0.001, 0.999), delta=DELTAS)
def test_the_risk_bound_misses_the_true_risk_at_most_as_often_as_promised(
    rows: int, risk: float, delta: float
) -> None:
    missed = [errors for errors in range(rows + 1) if risk_upper(errors, rows, delta) < risk]
    assert sum(binom.pmf(missed, rows, risk)) <= delta + 1e-9


@given(rows=st.integers(1, 2000), share=st.floats(0, 1), delta=DELTAS, part=st.floats(0.1, 0.99))
def test_the_risk_bound_rises_with_errors_and_falls_with_rows_and_delta(
    rows: int, share: float, delta: float, part: float
) -> None:
    errors = min(rows - 1, int(share * rows))
    bound = risk_upper(errors, rows, delta)
    assert errors / rows < bound <= 1.0
    assert bound < risk_upper(errors + 1, rows, delta)
    assert risk_upper(errors, rows + 1, delta) < bound
    assert bound < risk_upper(errors, rows, part * delta)


@given(rows=st.integers(0, 300), losses=st.integers(0, 300), gains=st.integers(0, 300), delta=DELTAS)
def test_the_loss_bound_covers_what_was_seen_and_is_one_where_nothing_was(
    rows: int, losses: int, gains: int, delta: float
) -> None:
    losses = min(losses, rows)
    gains = min(gains, rows - losses)
    bound = loss_upper(losses, gains, rows, delta)
    assert (losses - gains) / max(1, rows) <= bound <= 1.0
    assert bound > 0.999 or rows
    if losses == rows:
        assert bound == 1.0


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_no_rows_reject_no_loss(epsilon: float) -> None:
    assert loss_p_value(0, 0, 0, epsilon, 0.05) > 0.05


def test_all_wrong_or_no_rows_is_a_bound_of_one() -> None:
    assert risk_upper(0, 0, 0.05) == 1.0
    assert risk_upper(7, 7, 0.05) == 1.0


@pytest.mark.parametrize(("errors", "rows", "delta"), [(3, 2, 0.05), (-1, 2, 0.05), (0, 2, 0.0), (0, 2, 1.0)])
def test_impossible_counts_and_levels_are_refused(errors: int, rows: int, delta: float) -> None:
    with pytest.raises(ValueError, match="give"):
        risk_upper(errors, rows, delta)


def test_no_errors_at_five_percent_twice_need_59_rows() -> None:
    assert rows_needed(0.05, 0.05) == 59


@given(alpha=st.floats(0.01, 0.3), delta=st.floats(0.01, 0.3), part=st.floats(0, 0.7))
def test_the_rows_needed_are_enough(alpha: float, delta: float, part: float) -> None:
    risk = part * alpha
    rows = rows_needed(alpha, delta, risk)
    assert rows is not None
    assert risk_upper(min(rows, math.ceil(risk * rows - 1e-9)), rows, delta) <= alpha


def test_a_risk_that_is_not_below_alpha_needs_more_rows_than_there_are() -> None:
    assert rows_needed(0.05, 0.05, 0.05) is None
    assert rows_needed(0.05, 0.05, 0.0499999) is None


@settings(max_examples=40)
@given(rows=st.integers(1, 20), loss=st.floats(0, 0.6), gain=st.floats(0, 0.4), delta=st.floats(0.02, 0.3))
def test_the_loss_test_rejects_a_true_null_at_most_as_often_as_promised(
    rows: int, loss: float, gain: float, delta: float
) -> None:
    """Every outcome of a few rows is enumerated, so the chance is exact."""
    epsilon, chance = loss - gain, 0.0
    for apart in range(rows + 1):
        for losses in range(apart + 1):
            gains = apart - losses
            if loss_p_value(losses, gains, rows, epsilon, delta) <= delta:
                ways = math.comb(rows, apart) * math.comb(apart, losses)
                chance += ways * loss**losses * gain**gains * (1 - loss - gain) ** (rows - apart)
    assert chance <= delta + 1e-9


def test_the_loss_test_holds_in_a_simulation_with_many_rows() -> None:
    delta, draws = 0.1, np.random.default_rng(0).multinomial(500, [0.05, 0.03, 0.92], size=300)
    seen, count = np.unique(draws[:, :2], axis=0, return_counts=True)
    rejected = [loss_p_value(int(losses), int(gains), 500, 0.02, delta) <= delta for losses, gains in seen]
    assert count[rejected].sum() / 300 <= delta + 3 * math.sqrt(delta * (1 - delta) / 300)


def test_the_loss_bound_is_where_the_test_turns_and_sharpens_with_rows() -> None:
    few, many = loss_upper(4, 2, 200, 0.05), loss_upper(40, 20, 2000, 0.05)
    assert 0.01 < many < few < 0.06
    assert loss_p_value(4, 2, 200, few + 1e-3, 0.05) <= 0.05 < loss_p_value(4, 2, 200, few - 1e-3, 0.05)


def test_more_disagreements_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at most as many as rows"):
        loss_p_value(3, 3, 5, 0.1, 0.05)


def test_a_sequence_of_tests_stops_at_the_first_failure() -> None:
    assert fixed_sequence([True, True, False, True]) == 2
    assert fixed_sequence([]) == 0
