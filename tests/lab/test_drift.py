"""Drift: how often it cries wolf, how soon it sees a real change, and what a reference may be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cascade.errors import ConfigError
from cascade.lab.monitoring.drift import Drift, Reference, drift, read_references
from cascade.policy.calibrate import KEPT_SCORES, fit, thin

Scores = NDArray[np.float64]
Source = Callable[[np.random.Generator, int], Scores]


def reference(scores: Scores) -> Reference:
    return Reference(by="labels", signal="top1", rows=len(scores), scores=thin(scores.tolist()))


def look(then: Scores, now: Scores, accept: float = 0.7, delta: float = 0.01) -> Drift:
    return drift(reference(then), now.tolist(), accept=accept, confidence=lambda score: score, delta=delta)


def smooth(rng: np.random.Generator, count: int) -> Scores:
    return rng.beta(4, 1, count)


def votes(rng: np.random.Generator, count: int) -> Scores:
    return rng.choice([1 / 3, 2 / 3, 1.0], count, p=[0.1, 0.2, 0.7])


def sure(rng: np.random.Generator, count: int) -> Scores:
    return 1 - rng.exponential(1e-3, count).clip(max=1)


@pytest.mark.parametrize("rows", [50, 1500])
@pytest.mark.parametrize("source", [smooth, votes, sure])
def test_false_alarms_are_rarer_than_promised_however_often_one_looks(source: Source, rows: int) -> None:
    """Looking after each of 1000 live runs, with a threshold and a calibration taken from the same rows."""
    rng = np.random.default_rng(rows)
    delta, trials, alarms = 0.1, 60, 0
    for _ in range(trials):
        then = source(rng, rows)
        curve = fit("isotonic", then.tolist(), (rng.random(rows) < then).tolist())
        accept = curve.apply(float(np.quantile(then, rng.random())))
        live = source(rng, 1000).tolist()
        result = drift(reference(then), live, accept=accept, confidence=curve.apply, delta=delta)
        alarms += result.verdict == "drifted"
    # More alarms than this would come by chance less than once in a thousand such tests.
    assert alarms <= delta * trials + 3.1 * (trials * delta * (1 - delta)) ** 0.5


@pytest.mark.parametrize(("shape", "runs"), [(2.5, 600), (2.0, 200), (1.0, 50)])
def test_a_real_change_is_seen_soon(shape: float, runs: int) -> None:
    """Acceptance falls from 76 % to 59, 51 or 30 %: seen within so many runs nine times out of ten."""
    rng = np.random.default_rng(1)
    result = [look(smooth(rng, 1000), rng.beta(shape, 1, runs)) for _ in range(50)]
    assert sum(each.verdict == "drifted" for each in result) >= 45


def test_scores_that_rise_are_drift_too() -> None:
    rng = np.random.default_rng(2)
    result = look(smooth(rng, 1000), rng.beta(12, 1, 300))
    assert (result.verdict, result.live) > ("drifted", result.reference)


def test_a_change_above_the_threshold_is_seen_though_acceptance_stays() -> None:
    rng = np.random.default_rng(3)
    then, now = rng.uniform(0.8, 1.0, 1000), rng.uniform(0.8, 0.9, 300)
    result = look(then, now, accept=0.5)
    assert (result.reference, result.live, result.verdict) == (1.0, 1.0, "drifted")


def test_the_alarm_is_dated_and_stays() -> None:
    rng = np.random.default_rng(4)
    then, fine, bad = smooth(rng, 1000), smooth(rng, 500), rng.beta(1, 1, 200)
    result = look(then, np.concatenate([fine, bad]))
    assert result.since is not None
    assert 500 <= result.since < 700
    assert look(then, np.concatenate([fine, bad, smooth(rng, 3000)])).since == result.since


def test_the_verdict_does_not_depend_on_how_often_one_looked() -> None:
    rng = np.random.default_rng(5)
    then, now = smooth(rng, 500), rng.beta(2, 1, 300)
    daily = [look(then, now[:runs]).since for runs in range(10, 301, 10)]
    first = look(then, now).since
    assert first is not None
    assert set(daily) == {None, first}


def test_few_runs_and_none_say_nothing() -> None:
    rng = np.random.default_rng(6)
    then = smooth(rng, 500)
    assert look(then, smooth(rng, 20)).verdict == "too few runs"
    assert look(then, smooth(rng, 30)).verdict == "ok"
    nothing = look(then, np.array([]))
    assert (nothing.runs, nothing.live, nothing.e_value, nothing.verdict) == (0, None, 1.0, "too few runs")


def test_a_reference_of_one_row_proves_nothing() -> None:
    assert look(np.array([0.9]), np.full(500, 0.1)).verdict == "ok"


@pytest.mark.parametrize("rows", [1, 2, 500, KEPT_SCORES, KEPT_SCORES + 1, 10_000])
def test_shares_of_the_reference_are_known_exactly_or_within_a_kept_rank(rows: int) -> None:
    scores = np.random.default_rng(7).random(rows)
    kept = reference(scores)
    for edge in [0.0, 0.3, float(scores.min()), float(scores.max()), 0.9, 1.1]:
        minimum, maximum = kept.below(int(np.searchsorted(kept.scores, edge)))
        true = int((np.round(scores, 9) < edge).sum())
        assert minimum <= true <= maximum
        assert maximum - minimum <= rows / (KEPT_SCORES - 1) if rows > KEPT_SCORES else maximum == minimum


def test_the_probability_of_a_false_alarm_must_be_one() -> None:
    with pytest.raises(ValueError, match="delta is 1"):
        look(np.array([0.5]), np.array([0.5]), delta=1)


GOOD = {"by": "labels", "signal": "top1", "rows": 2, "scores": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "reference file is missing"),
        ("{", "Invalid JSON"),
        (json.dumps({"graph": "g@1", "written": "x"}), "stages: Field required"),
        ({"scores": [0.2, 0.1]}, "stages.first: Value error, scores must not decrease"),
        ({"rows": 3}, "2 scores; expected 3 of 3 rows"),
        ({"scores": []}, "stages.first.scores"),
        ({"scores": [0.1, "NaN"]}, "finite"),
        ({"extra": 1}, "Extra inputs"),
    ],
)
def test_a_broken_reference_file_is_refused(
    content: str | dict[str, Any] | None, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "reference.json"
    if isinstance(content, dict):
        content = json.dumps({"graph": "g@1", "written": "x", "stages": {"first": GOOD | content}})
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"reference\.json") as caught:
        read_references(path)
    assert complaint in str(caught.value)
    assert "write it anew" in str(caught.value)
