"""RouteLLM's protocol: the published protocol's own numbers, and small curves done by hand."""

import csv
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.lab.evaluation.routing import apgr, calls_needed, cpt, error_cost_area, escalated, sweep


def protocol(score: np.ndarray, weak: np.ndarray, strong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The protocol word for word, in whole numbers: 11 quantiles, `>=` but for the highest, which is `>`."""
    shares, quality, order = [], [], np.sort(score)
    for number in range(11):
        threshold = order[math.ceil(Fraction(number * (len(score) - 1), 10))]
        chosen = score >= threshold if number < 10 else score > threshold
        shares.append(chosen.mean())
        quality.append(np.where(chosen, strong, weak).mean())
    return np.array(shares[::-1]), np.array(quality[::-1])


@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 1000))
def test_the_curve_is_the_protocols(count: int, distinct: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    score = draw.integers(distinct, size=count) / 7
    weak, strong = draw.integers(2, size=(2, count)).astype(float)
    expected, result = protocol(score, weak, strong), sweep(score, weak, strong)
    assert np.allclose(expected[0], result[0])
    assert np.allclose(expected[1], result[1])


def test_gsm8k_of_routellm_gives_the_known_figures(data: Path) -> None:
    """Mixtral and GPT-4 on 1,307 questions; length of the prompt and the oracle as others measured them."""
    folder = data / "routellm" / "gsm8k"
    seen = (folder / "contaminated_prompts.jsonl").read_text().splitlines()
    leaked = {json.loads(line)["eval_prompt"] for line in seen}
    with (folder / "gsm8k_responses.csv").open(newline="") as file:
        result = [row for row in csv.DictReader(file) if row["prompt"] not in leaked]
    weak = np.array([row["mistralai/Mixtral-8x7B-Instruct-v0.1"] == "True" for row in result], float)
    strong = np.array([row["gpt-4-1106-preview"] == "True" for row in result], float)
    length = np.array([len(row["prompt"]) for row in result])
    assert (len(result), round(weak.mean(), 3), round(strong.mean(), 3)) == (1307, 0.637, 0.858)
    assert apgr(length, weak, strong) == pytest.approx(0.597, abs=0.003)
    assert apgr(strong - weak, weak, strong) == pytest.approx(1.121, abs=0.001)
    random = [apgr(np.random.default_rng(seed).random(len(result)), weak, strong) for seed in range(50)]
    assert np.mean(random) == pytest.approx(0.5, abs=0.01)


def test_missing_scores_are_escalated_first() -> None:
    chosen = escalated([0.9, math.nan, 0.1, 0.5], points=5)
    assert chosen.sum(axis=0).tolist() == [0, 1, 2, 3, 4]
    assert chosen[1].tolist() == [False, True, True, True, True]


def test_equal_scores_go_together() -> None:
    assert escalated([0.5] * 4, points=3).sum(axis=0).tolist() == [0, 4, 4]


def test_the_gap_cannot_be_told_where_the_strong_model_is_no_better() -> None:
    assert math.isnan(apgr([1, 2, 3], [1, 0, 1], [0, 1, 1]))
    assert math.isnan(cpt([1, 2, 3], [1, 0, 1], [0, 1, 1], 0.5))


@pytest.mark.parametrize("score", [[], [[1.0]]])
def test_scores_that_are_no_column_are_refused(score: list[object]) -> None:
    with pytest.raises(ValueError, match="give rows"):
        escalated(score)


def test_calls_needed_is_the_first_crossing_of_a_curve_by_hand() -> None:
    share, quality = [0.0, 0.25, 0.5, 1.0], [0.2, 0.6, 0.4, 1.0]
    assert calls_needed(share, quality, 0.2, 1.0, 0.5) == pytest.approx(0.25)
    assert calls_needed(share, quality, 0.2, 1.0, 0.8) == pytest.approx(0.5 + 0.5 * (0.84 - 0.4) / 0.6)
    assert calls_needed(share, quality, 0.2, 1.0, 0.25) == pytest.approx(0.125)
    assert calls_needed(share, quality, 0.2, 1.0, 1.0) == pytest.approx(1.0)
    assert math.isnan(float(calls_needed(share, [0.2, 0.2, 0.2, 0.3], 0.2, 1.0, 0.5)))


def test_the_perfect_router_needs_only_the_calls_that_help() -> None:
    weak, strong = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0.0]), np.ones(10)
    assert cpt(1 - weak, weak, strong, 1.0) == pytest.approx(0.4)
    assert apgr(np.arange(10), weak, strong) == pytest.approx(0.2 + 0.6)


@pytest.mark.parametrize(
    ("maximum", "expected"),
    [
        (3.0, (1 * 0.45 + 1 * 0.35) / 2),  # the whole curve
        (2.0, 0.45),  # its first half
        (1.5, (0.5 + 0.45) / 2),  # cut inside a piece
        (5.0, (0.45 + 0.35 + 2 * 0.3) / 4),  # level beyond its end
    ],
)
def test_the_error_cost_area_of_a_curve_by_hand(maximum: float, expected: float) -> None:
    assert error_cost_area([1.0, 2.0, 3.0], [0.5, 0.4, 0.3], maximum) == pytest.approx(expected)


def test_no_width_is_no_area() -> None:
    assert math.isnan(float(error_cost_area([1.0, 2.0], [0.5, 0.4], 1.0)))


def test_curves_of_many_resamples_are_measured_at_once() -> None:
    cost, error = np.array([[1.0, 2.0], [1.0, 3.0]]), np.array([[0.5, 0.3], [0.4, 0.2]])
    assert error_cost_area(cost, error, [2.0, 3.0]) == pytest.approx([0.4, 0.3])
    result = calls_needed(cost - 1, 1 - error, [0.5, 0.6], [0.7, 0.8], 0.5)
    assert result == pytest.approx([0.5, 1.0])
