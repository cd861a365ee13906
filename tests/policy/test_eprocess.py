"""Evidence by betting: it grows when the claim is false, and is rarely ever large while it is true."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.policy.eprocess import (
    SHARES,
    Pairs,
    difference_interval,
    evidence_above,
    evidence_below,
    not_worse,
    reached,
    rows_needed,
    worse,
)

COUNTS = st.builds(Pairs, st.integers(0, 500), st.integers(0, 2000), st.integers(0, 500))


def test_one_row_is_a_bet_on_each_share() -> None:
    """A better row, at epsilon 0.02, multiplies a share of the greatest bet 1 / 0.98 by 1.02."""
    expected = math.log(sum(1 + share / 0.98 * 1.02 for share in SHARES) / len(SHARES))
    assert not_worse(Pairs(better=1), 0.02) == pytest.approx(expected)


def test_nothing_is_no_evidence() -> None:
    assert not_worse(Pairs(), 0.02) == worse(Pairs(), 0.02) == 0.0


@given(COUNTS, st.floats(0.005, 0.2))
def test_more_good_rows_are_more_evidence(pairs: Pairs, epsilon: float) -> None:
    assert not_worse(pairs._replace(better=pairs.better + 1), epsilon) > not_worse(pairs, epsilon) - 1e-9
    assert not_worse(pairs._replace(worse=pairs.worse + 1), epsilon) < not_worse(pairs, epsilon) + 1e-9


@given(COUNTS, st.floats(0.01, 0.2))
def test_a_model_is_never_proved_both_not_worse_and_worse(pairs: Pairs, epsilon: float) -> None:
    assert not (reached(not_worse(pairs, epsilon), 0.2) and reached(worse(pairs, epsilon), 0.2))


@given(COUNTS, st.sampled_from([0.01, 0.05, 0.1]))
def test_the_rows_needed_are_the_fewest_that_suffice(pairs: Pairs, epsilon: float) -> None:
    more = rows_needed(pairs, epsilon, 0.05)
    if more is None:
        assert pairs.mean <= 0
        return
    assert reached(not_worse(pairs.scaled(pairs.rows + more), epsilon), 0.05)
    assert more == 0 or not reached(not_worse(pairs.scaled(pairs.rows + more - 1), epsilon), 0.05)


def test_the_rows_needed_of_equal_answers() -> None:
    assert rows_needed(Pairs(), 0.02, 0.05) == 253
    assert rows_needed(Pairs(equal=253), 0.02, 0.05) == 0
    assert rows_needed(Pairs(worse=30, equal=100), 0.02, 0.05) is None


@given(COUNTS)
def test_the_interval_holds_the_mean_and_agrees_with_the_tests(pairs: Pairs) -> None:
    low, high = difference_interval(pairs, 0.05)
    assert low <= pairs.mean <= high
    assert low < -0.9999 or reached(evidence_above(pairs.counts, low - 1e-6, -1.0), 0.025)
    assert high > 0.9999 or reached(evidence_below(pairs.counts, high + 1e-6, 1.0), 0.025)


def _peaks(
    rng: np.random.Generator, shares: tuple[float, float, float], epsilon: float, trials: int
) -> float:
    """Return the share of trials in which 2,000 rows ever proved that the new model is not worse."""
    hits = 0
    for _ in range(trials):
        values = rng.choice([-1, 0, 1], p=shares, size=2000)
        counts = [np.cumsum(values == value) for value in (-1, 0, 1)]
        stakes = [value + epsilon for value in (-1, 0, 1)]
        logs = [
            sum(
                count * math.log1p(share / (1 - epsilon) * stake)
                for count, stake in zip(counts, stakes, strict=True)
            )
            for share in SHARES
        ]
        path = np.logaddexp.reduce(np.stack(logs), axis=0) - math.log(len(SHARES))
        last = Pairs(*(int(count[-1]) for count in counts))
        assert path[-1] == pytest.approx(not_worse(last, epsilon))
        hits += bool(path.max() >= math.log(20))
    return hits / trials


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares",
    [(0.02, 0.98, 0.0), (0.05, 0.92, 0.03), (0.2, 0.62, 0.18), (0.5, 0.02, 0.48), (0.06, 0.92, 0.02)],
)
def test_a_model_that_is_worse_is_promoted_with_probability_delta_at_most(
    shares: tuple[float, float, float],
) -> None:
    """At every row of 2,000 one looks, at a model that is worse by epsilon or more; delta is 0.05."""
    rate = _peaks(np.random.default_rng(7), shares, 0.02, 1000)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.slow
def test_a_model_that_is_as_good_is_promoted() -> None:
    assert _peaks(np.random.default_rng(7), (0.01, 0.98, 0.01), 0.02, 200) > 0.95
