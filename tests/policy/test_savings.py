"""Savings stand on what recorded calls cost, with an interval that covers the truth; no bound is shown."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import pytest

from cascade.policy.costs import CostCurve, PricedCall, student
from cascade.policy.result import price_baseline
from cascade.policy.savings import PricedRun, savings
from cascade.records import Baseline, Call, Decision, Step
from cascade.spec.parts import Price

PRICE = Price(input=2, output=10)


class World(NamedTuple):
    """A simulated store: its runs, and what the strongest model alone would really have cost."""

    runs: list[PricedRun]
    truth: float


def simulate(seed: int, runs: int, asked: float | None, answer_spread: float) -> World:
    """Ask a model with prompts of many lengths; with `asked` None, longer ones are asked more often."""
    draw = random.Random(seed)
    made, truth = [], 0.0
    for _ in range(runs):
        size = int(math.exp(draw.gauss(4.5, 0.8))) + 1
        tokens = size / 4 * draw.uniform(0.8, 1.25) + 8, math.exp(draw.gauss(4, answer_spread))
        cost = (tokens[0] * PRICE.input + tokens[1] * PRICE.output) / 1e6
        truth += cost
        is_asked = draw.random() < (min(0.9, size / 250) if asked is None else asked)
        known = Baseline(model="strong", cost_usd=cost, assumption="strong was asked: its real cost")
        known = known.model_copy(update={"prompt_bytes": size})
        if is_asked:
            made.append(PricedRun("g", cost, known))
        else:
            made.append(PricedRun("g", 0.0, price_baseline("strong", PRICE, [], size, "yes")))
    return World(made, truth)


@pytest.mark.parametrize("runs", [30, 120])
@pytest.mark.parametrize("asked", [0.3, 0.62, None])
@pytest.mark.parametrize("answer_spread", [0.01, 0.7])
def test_the_interval_covers_the_truth_in_at_least_nine_of_ten_stores(
    runs: int, asked: float | None, answer_spread: float
) -> None:
    covered, seeds = 0, 100
    for seed in range(seeds):
        world = simulate(seed, runs, asked, answer_spread)
        found = savings(world.runs)
        assert found is not None
        assert found.low_usd <= found.cost_usd <= found.high_usd
        covered += found.low_usd <= world.truth <= found.high_usd
    assert covered >= 0.9 * seeds


def test_a_store_in_which_most_runs_asked_the_big_model_does_not_claim_to_save_most() -> None:
    for seed in range(20):
        found = savings(simulate(seed, 100, 0.62, 0.5).runs)
        assert found is not None
        assert found.share is not None
        assert found.share_low is not None
        assert found.share_high is not None
        assert found.share_low <= found.share <= found.share_high < 0.6
        assert found.by_calls + found.asked == found.runs == 100
        assert f"from {found.calls} recorded calls" in found.basis


def test_more_calls_make_the_interval_narrower() -> None:
    def width(runs: int) -> float:
        worlds = (savings(simulate(seed, runs, 0.5, 0.7).runs) for seed in range(5))
        return sum((each.high_usd - each.low_usd) / each.cost_usd for each in worlds if each is not None)

    assert width(1000) < 0.5 * width(100)


def test_the_cost_of_a_call_follows_the_length_of_its_prompt() -> None:
    calls = [PricedCall(size, 0.001 + 0.00001 * size) for size in range(10, 200, 7)]
    curve = CostCurve.fit(calls)
    assert curve is not None
    for size in (15, 500):
        assert curve.total([size]).cost_usd == pytest.approx(0.001 + 0.00001 * size)
    assert curve.total([15, 500, None]).cost_usd == pytest.approx(
        0.00115 + 0.006 + sum(call.cost_usd for call in calls) / len(calls)
    )


@pytest.mark.parametrize("calls", [[], [PricedCall(10, 0.1)], [PricedCall(10, 0.1), PricedCall(20, 0.1)]])
def test_fewer_than_three_calls_are_no_evidence(calls: list[PricedCall]) -> None:
    assert CostCurve.fit(calls) is None


def test_calls_of_equal_or_unknown_length_or_cost_are_no_error() -> None:
    for calls in (
        [PricedCall(10, 0.1)] * 3,
        [PricedCall(None, 0.1)] * 30,
        [PricedCall(10, 0.0)] * 30,
        [PricedCall(0, 1e-12), PricedCall(10**6, 1e6), *[PricedCall(5, 1.0)] * 9],
    ):
        curve = CostCurve.fit(calls)
        assert curve is not None
        found = curve.total([0, 10, None, 10**7])
        assert 0 <= found.low_usd <= found.cost_usd <= found.high_usd < math.inf


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (10, 2.2281), (100, 1.9840)]
)
def test_students_quantile_is_the_published_one(degrees: int, quantile: float) -> None:
    assert student(degrees) == pytest.approx(quantile, rel=2e-3)


def test_nine_tiny_messages_count_their_tokens_and_not_a_bound() -> None:
    base = price_baseline("strong", Price(input=1e6, output=0), [], 9 * (2 + 16), "ok")
    assert base.by == "text"
    assert base.cost_usd < 60  # at one dollar a token
    assert base.low_usd is not None
    assert base.high_usd is not None
    assert 0 < base.low_usd < base.cost_usd < base.high_usd


def test_an_estimate_from_text_is_never_above_what_a_call_can_have() -> None:
    base = price_baseline("strong", PRICE, [], 10_000, "x" * 10_000, most=(0, 1))
    assert base.cost_usd == base.high_usd == pytest.approx(PRICE.output / 1e6)


def test_a_bound_of_an_earlier_version_is_left_out_until_there_are_calls() -> None:
    old = Baseline(
        model="strong",
        cost_usd=0.5,
        assumption="strong asked once: 655 prompt and 3 answer tokens (4 bytes a token), no reasoning tokens",
    )
    assert old.by == "bound"
    assert savings([PricedRun("g", 0.0, old)]) is None
    asked = Baseline(model="strong", cost_usd=0.001, assumption="strong was asked: its real cost")
    assert asked.by == "asked"
    few = savings([PricedRun("g", 0.0, old), PricedRun("g", 0.001, asked)])
    assert few is not None
    assert (few.runs, few.left_out, few.cost_usd) == (1, 1, 0.001)
    enough = savings([PricedRun("g", 0.0, old), *[PricedRun("g", 0.001, asked)] * 3])
    assert enough is not None
    assert (enough.runs, enough.left_out) == (4, 0)
    assert enough.cost_usd == pytest.approx(0.004)


def test_what_a_server_without_counts_charged_is_no_evidence_for_other_runs() -> None:
    call = Call(model="strong", tier="opus", text="x", cost_usd=9.0, meta={"usage": "missing"})
    step = Step(stage="last", decision=Decision(action="accept", rule="unchecked"), calls=(call,))
    base = price_baseline("strong", PRICE, [step], 40, "x")
    assert (base.cost_usd, base.bounded) == (9.0, True)
    assert "a bound" in base.assumption
    other = price_baseline("strong", PRICE, [], 40, "x")
    found = savings([*[PricedRun("g", 9.0, base)] * 5, PricedRun("g", 0.0, other)])
    assert found is not None
    assert found.by_text == 1
    assert found.cost_usd == pytest.approx(45.0 + other.cost_usd)


def test_the_calls_of_one_graph_say_nothing_about_another() -> None:
    world = simulate(1, 60, 0.5, 0.5)
    text = price_baseline("strong", PRICE, [], 100, "yes")
    found = savings([*world.runs, PricedRun("other", 0.0, text)])
    assert found is not None
    assert (found.by_text, found.models) == (1, ("strong",))
