"""Metrics: against textbook definitions, for any rows, in any order."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.lab.evaluation.metrics import (
    accuracy,
    aurc,
    auroc,
    bootstrap,
    brier,
    coverage_at_risk,
    ece,
)
from cascade.policy.intervals import wilson

Rows = list[tuple[float, bool]]
ROWS = st.lists(st.tuples(st.integers(0, 8).map(lambda k: k / 8), st.booleans()), min_size=1, max_size=40)
METRICS: list[Callable[..., float]] = [auroc, ece, brier, aurc, lambda c, r: coverage_at_risk(c, r, 0.2)]


def split(rows: Rows) -> tuple[list[float], list[bool]]:
    """Columns of confidence and outcome."""
    return [row[0] for row in rows], [row[1] for row in rows]


@given(rows=ROWS, data=st.data())
def test_no_metric_depends_on_the_order_of_rows(rows: Rows, data: st.DataObject) -> None:
    """Ties included: a metric is a function of the set of rows, and lies in [0, 1] or is NaN."""
    shuffled = data.draw(st.permutations(rows))
    for metric in METRICS:
        value = metric(*split(rows))
        assert math.isnan(value) or -1e-12 <= value <= 1 + 1e-12
        assert value == pytest.approx(metric(*split(shuffled)), nan_ok=True)


@given(rows=ROWS)
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows: Rows) -> None:
    """Counting all pairs by hand, ties half, gives the same number."""
    right = [score for score, correct in rows if correct]
    wrong = [score for score, correct in rows if not correct]
    value = auroc(*split(rows))
    if not right or not wrong:
        assert math.isnan(value)
        return
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    assert value == pytest.approx(sum(pairs) / len(pairs))


@given(rows=ROWS, risk=st.floats(0, 1))
def test_coverage_at_risk_is_the_best_of_all_thresholds(rows: Rows, risk: float) -> None:
    """Trying every threshold by hand gives the same coverage."""
    best = 0.0
    for threshold in {score for score, _ in rows}:
        accepted = [correct for score, correct in rows if score >= threshold]
        if accepted.count(False) <= risk * len(accepted) + 1e-9:
            best = max(best, len(accepted) / len(rows))
    assert coverage_at_risk(*split(rows), risk) == pytest.approx(best)


@given(rows=ROWS)
def test_aurc_is_the_mean_risk_over_random_orders_of_ties(rows: Rows) -> None:
    """Where confidences are all equal, every coverage has the overall risk."""
    flat = [(0.5, correct) for _, correct in rows]
    assert aurc(*split(flat)) == pytest.approx(1 - accuracy([correct for _, correct in rows]))


def test_metrics_of_a_known_table() -> None:
    """Four rows, worked out by hand."""
    confidence, correct = [0.9, 0.8, 0.6, 0.3], [True, True, False, True]
    assert accuracy(correct) == 0.75
    assert auroc(confidence, correct) == pytest.approx(2 / 3)
    assert brier(confidence, correct) == pytest.approx((0.01 + 0.04 + 0.36 + 0.49) / 4)
    assert aurc(confidence, correct) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert ece(confidence, correct, bins=2) == pytest.approx((0.15 + abs(0.45 - 0.5)) / 2)
    assert coverage_at_risk(confidence, correct, 0.0) == 0.5
    assert coverage_at_risk(confidence, correct, 0.25) == 1.0


def test_ece_finds_the_true_gap_and_no_gap() -> None:
    """Overconfidence by 0.2 reads 0.2; perfect calibration reads almost nothing."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.8, size=50_000)
    correct = rng.uniform(size=truth.size) < truth
    assert ece(truth, correct) < 0.01
    assert ece(truth + 0.2, correct) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("successes", "rows", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (1, 2, 0.0945, 0.9055)],
)
def test_wilson_interval_matches_published_values(successes: int, rows: int, low: float, high: float) -> None:
    """81 of 263 is the worked example of Newcombe (1998)."""
    assert wilson(successes, rows) == pytest.approx((low, high), abs=1e-4)


@given(rows=st.integers(1, 500), data=st.data())
def test_wilson_interval_holds_the_share_inside_the_unit_interval(rows: int, data: st.DataObject) -> None:
    """For any count the interval is proper."""
    successes = data.draw(st.integers(0, rows))
    low, high = wilson(successes, rows)
    assert 0.0 <= low <= successes / rows <= high <= 1.0


def test_bootstrap_is_repeatable_and_covers_a_mean_like_the_normal_interval() -> None:
    """The seed fixes it; its width for a mean is the textbook ±1.96 standard errors."""
    values = np.random.default_rng(3).normal(size=400)
    result = bootstrap(accuracy, values)
    assert result == bootstrap(accuracy, values)
    assert result != bootstrap(accuracy, values, seed=1)
    half = 1.96 * values.std() / 20
    assert result == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_bootstrap_leaves_out_resamples_that_tell_nothing() -> None:
    """AUROC needs both classes; resamples with one are left out, and without any both ends are NaN."""
    low, high = bootstrap(auroc, [0.1, 0.9, 0.5], [False, True, True])
    assert 0.0 <= low <= high <= 1.0
    assert all(math.isnan(end) for end in bootstrap(auroc, [0.1, 0.9], [True, True]))


def test_no_rows_are_nan_not_a_number_made_up() -> None:
    """Empty columns have no accuracy, calibration or interval."""
    assert all(math.isnan(metric([], [])) for metric in METRICS)
    assert math.isnan(accuracy([]))
    assert all(math.isnan(end) for end in (*wilson(0, 0), *bootstrap(accuracy, [])))


def test_columns_that_do_not_fit_are_refused() -> None:
    """Unequal lengths, NaN and impossible counts are errors."""
    with pytest.raises(ValueError, match="shape"):
        auroc([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="NaN"):
        ece([math.nan], [True])
    with pytest.raises(ValueError, match="columns"):
        bootstrap(auroc, [0.1, 0.2], [True])
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)
