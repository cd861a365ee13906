"""Replays: equal to running the changed graph wherever that can be known, and bounded where it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stagewise import plan, run, under

from cascade.lab.replays.compare import compare, recorded
from cascade.lab.replays.replay import ReplayOutcome, ReplayResult, incompatibility, replay
from cascade.policy.calibrate import Calibration
from cascade.records import Call, Decision, Estimate, Request, Result, Step, UnavailableModel
from cascade.spec.schema import Graph

TEXTS = ["card lost", "loan", "card and loan", "hello"]
SURE = [0.2, 0.5, 0.8, 0.95]


def model(confidence: float, tier: str = "haiku", **settings: Any) -> dict[str, Any]:
    return {"kind": "scripted", "default": f"by {tier}", "confidence": confidence, "tier": tier, **settings}


POOL = {
    "a": model(0.55, "haiku"),
    "b": model(0.75, "haiku", price={"input": 1.0, "output": 1.0}, max_tokens=4),
    "c": model(0.9, "sonnet", price={"input": 3.0, "output": 5.0}, max_tokens=4, local=False),
    "d": model(0.7, "sonnet", fail="broken"),
    "e": {"kind": "scripted", "default": "no signal", "tier": "opus", "price": {"input": 9.0, "output": 9.0}},
}
RULES = {"left": ["card"], "right": ["loan"]}


@st.composite
def stages(draw: st.DrawFn, index: int, last: int) -> dict[str, Any]:
    """Any stage: checked or not, one or several models, a gate that picks or branches forward."""
    later = [f"s{number}" for number in range(index + 1, last)]
    report: dict[str, Any] = {"name": f"s{index}"}
    if later:
        report["escalate"] = draw(st.sampled_from([None, "end", *later]))
    kind = draw(st.sampled_from(["ask", "ask", "pick", "branch"] if later else ["ask", "pick"]))
    if kind == "branch":
        to = {name: draw(st.sampled_from(later)) for name in RULES}
        accept = draw(st.sampled_from([None, 0.6, 0.9]))
        return {**report, "gate": {"by": "keywords", "rules": RULES, "to": to, "accept": accept}}
    report["ask"] = draw(st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=3, unique=True))
    if kind == "pick":
        rules = {
            name: RULES[side] for name, side in zip(report["ask"], ["left", "right", "left"], strict=False)
        }
        top, accept = draw(st.integers(1, len(report["ask"]))), draw(st.sampled_from([None, 0.4, 0.9]))
        report["gate"] = {"by": "keywords", "rules": rules, "top": top, "accept": accept}
    if draw(st.booleans()):
        report |= {"confidence": {"by": "logprob", "signal": "mean"}, "accept": draw(st.sampled_from(SURE))}
        report["audit_rate"] = draw(st.sampled_from([0.0, 0.5]))
    return report


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, Graph]:
    """A graph, and the same with other thresholds and limits."""
    last = draw(st.integers(1, 4))
    data: dict[str, Any] = {"name": "g", "models": POOL}
    data["stages"] = [draw(stages(index, last)) for index in range(last)]
    pair = []
    for _ in range(2):
        data["limits"] = {
            "cost_usd": draw(st.sampled_from([None, 1e-5, 5e-5, 7e-4])),
            "calls": draw(st.sampled_from([None, 1, 2, 5])),
        }
        data["on_exhausted"] = draw(st.sampled_from(["abstain", "best"]))
        for stage in data["stages"]:
            if "accept" in stage:
                stage["accept"] = draw(st.sampled_from(SURE))
                stage["audit_rate"] = draw(st.sampled_from([0.0, 0.0, 0.5]))
            if "gate" in stage:
                stage["gate"]["accept"] = draw(st.sampled_from([None, 0.4, 0.6, 0.9]))
        pair.append(Graph.model_validate(data))
    return pair[0], pair[1]


def decided(trace: tuple[Step, ...]) -> list[tuple[str, str, str | None]]:
    return [(step.stage, step.decision.rule, step.decision.to) for step in trace]


@settings(max_examples=150)
@given(graphs(), st.sampled_from(TEXTS), st.booleans())
def test_an_unchanged_graph_replays_to_what_was_recorded(
    pair: tuple[Graph, Graph], text: str, local_only: bool
) -> None:
    result = run(plan(pair[0]), Request(text=text, local_only=local_only))
    again = replay(result, under(pair[0]))
    assert again.unknown is None
    assert decided(again.trace) == decided(result.trace)
    assert again.outcomes == (recorded(result),)
    assert again.lowest == again.highest == pytest.approx(result.cost_usd, abs=1e-12)


@settings(max_examples=300)
@given(graphs(), st.sampled_from(TEXTS), st.booleans(), st.sampled_from(["R1", "R2", "R3"]))
def test_a_replay_is_what_the_changed_graph_does_or_bounds_it(
    pair: tuple[Graph, Graph], text: str, local_only: bool, called: str
) -> None:
    request = Request(text=text, local_only=local_only)
    before, after = pair
    real = run(plan(after), request, called)
    again = replay(run(plan(before), request, called), under(after, before))
    assert again.highest is not None
    assert recorded(real) in again.outcomes
    assert again.lowest - 1e-12 <= real.cost_usd <= again.highest + 1e-12
    assert decided(again.trace) == decided(real.trace)[: len(again.trace)]
    if again.unknown is None:
        assert decided(again.trace) == decided(real.trace)
        assert again.outcomes == (recorded(real),)
    else:
        assert again.unknown == real.trace[len(again.trace)].stage


def two(accept: float = 0.5, **changes: Any) -> Graph:
    """A checked stage that asks `a` (confidence 0.55), then `c`, which is not free."""
    check = {"confidence": {"by": "logprob", "signal": "mean"}, "accept": accept}
    first, second = {"name": "first", "ask": ["a"], **check}, {"name": "second", "ask": ["c"]}
    return Graph.model_validate({"name": "g", "models": POOL, "stages": [first, second]} | changes)


ASKED = Request(text="hello")


def test_a_stage_that_was_never_called_is_bounded_by_its_worst_case() -> None:
    result = run(plan(two()), ASKED)
    again = replay(result, under(two(0.8)))
    assert again == ReplayResult(
        result.run,
        again.trace,
        (ReplayOutcome("accepted", "second", "sonnet"), ReplayOutcome("abstained")),
        0.0,
        pytest.approx((1 * 3 + 4 * 5) / 1e6),
        "second",
    )
    assert [step.decision.rule for step in again.trace] == ["below_threshold"]


def test_the_cost_limit_bounds_what_a_run_could_have_cost() -> None:
    result = run(plan(two()), ASKED)
    again = replay(result, under(two(0.8, limits={"cost_usd": 2.5e-5})))
    assert again.highest == pytest.approx(2.3e-5)
    stages = [*two(0.8).model_dump(exclude_unset=True)["stages"], {"name": "third", "ask": ["c"]}]
    again = replay(result, under(two(limits={"cost_usd": 2.5e-5}, stages=stages)))
    assert (again.unknown, again.highest) == ("second", 2.5e-5)


def test_without_a_price_there_is_no_bound_but_the_limit() -> None:
    result = run(plan(two()), ASKED)
    blind: dict[str, Any] = {"price": lambda name, request: None}
    assert replay(result, under(two(0.8), **blind)).highest is None
    assert replay(result, under(two(0.8, limits={"cost_usd": 0.5}), **blind)).highest == 0.5


def test_a_new_calibration_is_applied_to_the_recorded_score() -> None:
    result = run(plan(two()), ASKED)
    fitted = Calibration(
        method="isotonic", x=(0.5, 0.6), y=(0.2, 0.4), by="logprob", signal="mean", rows=50, accuracy=0.5,
        auroc=0.5, ece=0.0, brier=0.2, data_sha256="0" * 64, model_fingerprint="0" * 64, fitted="2026-11-21",
    )  # fmt: skip
    again = replay(result, under(two(0.35), calibrations={"first": fitted}))
    assert again.unknown == "second"
    estimate = again.trace[0].estimate
    assert estimate is not None
    assert (estimate.score, estimate.confidence, estimate.calibrated) == (
        pytest.approx(0.55), pytest.approx(0.3), True,
    )  # fmt: skip
    assert replay(result, under(two(0.2), calibrations={"first": fitted})).outcomes == (
        ReplayOutcome("accepted", "first", "haiku"),
    )


def test_another_signal_is_read_from_the_record_or_unknown() -> None:
    result = run(plan(two()), ASKED)

    def by(confidence: dict[str, str]) -> ReplayResult:
        first = {"name": "first", "ask": ["a"], "accept": 0.5, "confidence": confidence}
        return replay(result, under(two(stages=[first, {"name": "second", "ask": ["c"]}])))

    assert by({"by": "logprob", "signal": "min"}).outcomes == (ReplayOutcome("accepted", "first", "haiku"),)
    assert by({"by": "logprob", "signal": "entropy"}).unknown == "first"
    assert by({"by": "labels"}).unknown == "first"


def test_a_stage_that_is_checked_now_and_was_not_then_is_unknown() -> None:
    unchecked = two(stages=[{"name": "first", "ask": ["a"]}, {"name": "second", "ask": ["c"]}])
    again = replay(run(plan(unchecked), ASKED), under(two()))
    assert again.unknown == "first"
    assert set(again.outcomes) == {
        ReplayOutcome("accepted", "first", "haiku"),
        ReplayOutcome("accepted", "second", "sonnet"),
        ReplayOutcome("abstained"),
    }  # fmt: skip


def person(accept: float) -> Graph:
    models = POOL | {"expert": {"kind": "human", "tier": "person"}}
    stages = [two(accept).model_dump(exclude_unset=True)["stages"][0], {"name": "person", "ask": ["expert"]}]
    return two(models=models, stages=stages)


def test_a_run_that_waits_for_a_person_still_waits_or_is_answered_before() -> None:
    trace = run(plan(two(0.8)), ASKED).trace[:1]
    decision = trace[0].decision.model_copy(update={"to": "person"})
    trace = (trace[0].model_copy(update={"decision": decision}),)
    waiting = Result(run="R", graph="g@1", status="waiting", request=ASKED, trace=trace)
    assert replay(waiting, under(person(0.8))).outcomes == (ReplayOutcome("waiting"),)
    assert replay(waiting, under(person(0.5))).outcomes == (ReplayOutcome("accepted", "first", "haiku"),)
    never_asked = run(plan(two(0.5)), ASKED)
    assert ReplayOutcome("waiting") in replay(never_asked, under(person(0.8))).outcomes


def timed(seconds: float, error: str | None = None) -> Result:
    """A run of `two` whose first stage took `seconds`."""
    calls = (Call(model="a", tier="haiku", text="" if error else "x", seconds=seconds, error=error),)
    signals = {"mean": 0.55}
    estimate = Estimate(by="logprob", chosen=0, signals=signals, score=0.55, confidence=0.55)
    decision = Decision(action="accept", rule="confident", threshold=0.5)
    if error:
        decision = Decision(action="escalate", rule="no_draft", to="second", detail=error)
    step = Step(
        stage="first", decision=decision, calls=calls, estimate=None if error else estimate, seconds=seconds
    )
    skip = Decision(action="abstain", rule="over_seconds")
    trace = (step, Step(stage="second", decision=skip)) if error else (step,)
    return Result(
        run="R", graph="g@1", status="abstained" if error else "accepted", request=ASKED, trace=trace
    )


def test_a_call_that_would_have_been_cut_off_is_unknown() -> None:
    before, after = two(limits={"seconds": 9.0}), two(limits={"seconds": 2.0})
    assert replay(timed(1.0), under(after, before)).unknown is None
    assert replay(timed(3.0), under(after, before)).unknown == "first"


def test_a_call_that_was_cut_off_is_unknown_with_more_time() -> None:
    before = two(limits={"seconds": 2.0})
    assert replay(timed(2.1, "no answer"), under(before)).outcomes == (ReplayOutcome("abstained"),)
    assert replay(timed(2.1, "no answer"), under(two(limits={"seconds": 9.0}), before)).unknown == "first"
    # It failed by itself, long before its time was up.
    assert replay(timed(0.1, "refused"), under(two(limits={"seconds": 9.0}), before)).unknown == "second"


def stopped_early(accept: float) -> Result:
    """A run of `two` whose first draft was stopped since it could no longer reach `accept`."""
    meta = {"finish_reason": "early_exit"}
    calls = (Call(model="a", tier="haiku", text="", error="stopped after 1 tokens", meta=meta),)
    decision = Decision(action="escalate", rule="early_exit", threshold=accept, to="second")
    second = run(plan(two(0.8)), ASKED).trace[1]
    trace = (Step(stage="first", decision=decision, calls=calls), second)
    return Result(run="R", graph="g@1", status="accepted", request=ASKED, trace=trace)


def test_a_draft_that_was_stopped_early_is_unknown_under_a_lower_threshold() -> None:
    result = stopped_early(0.8)
    for accept in (0.8, 0.9):
        assert replay(result, under(two(accept))).outcomes == (ReplayOutcome("accepted", "second", "sonnet"),)
    assert replay(result, under(two(0.7))).unknown == "first"


def hedged(accept: float) -> Graph:
    """Two checked stages; the second starts while the first still works."""
    check = {"confidence": {"by": "logprob", "signal": "mean"}}
    first = {"name": "first", "ask": ["c"], **check, "accept": 0.9, "hedge": 0.1}
    return two(stages=[first, {"name": "second", "ask": ["a"], **check, "accept": accept}])


def test_a_stage_that_lost_a_hedge_is_unknown_where_the_winner_is_not_accepted() -> None:
    late = Call(model="c", tier="sonnet", text="", error="cancelled: hedged", cost_usd=0.002)
    lost = Decision(action="escalate", rule="hedged", to="second")
    won = run(plan(two(0.5)), ASKED).trace[0].model_copy(update={"stage": "second"})
    trace = (Step(stage="first", decision=lost, calls=(late,)), won)
    result = Result(run="R", graph="g@1", status="accepted", cost_usd=0.002, request=ASKED, trace=trace)
    same = replay(result, under(hedged(0.5)))
    assert (same.outcomes, same.lowest) == ((ReplayOutcome("accepted", "second", "haiku"),), 0.002)
    assert replay(result, under(hedged(0.8))).unknown == "first"


def test_what_the_loser_of_a_hedge_cost_counts_where_it_would_have_come_later() -> None:
    late = Call(model="c", tier="sonnet", text="", error="cancelled: hedged", cost_usd=0.002)
    lost = Decision(action="escalate", rule="hedged", to="first")
    won = run(plan(two(0.5)), ASKED).trace[0]
    trace = (Step(stage="second", decision=lost, calls=(late,)), won)
    result = Result(run="R", graph="g@1", status="accepted", cost_usd=0.002, request=ASKED, trace=trace)
    assert replay(result, under(two(0.5))).lowest == 0.002
    assert replay(result, under(two(0.8))).unknown == "second"


def test_a_cancelled_run_is_left_out() -> None:
    cancelled = Result(run="R", graph="g@1", status="cancelled", request=ASKED, trace=())
    assert incompatibility(cancelled, two()) == "it was cancelled by its caller"


def test_a_model_that_could_not_be_called_then_cannot_be_called_now() -> None:
    first = run(plan(two(0.8)), ASKED).trace[0]
    missing = UnavailableModel(model=two().stage("second").ask[0], reason="no key")
    skip = Decision(action="abstain", rule="unavailable", facts=(missing,))
    trace = (first, Step(stage="second", decision=skip))
    result = Result(run="R", graph="g@1", status="abstained", request=ASKED, trace=trace)
    again = replay(result, under(two(0.9)))
    assert (again.outcomes, again.highest) == ((ReplayOutcome("abstained"),), 0.0)
    assert again.trace[1].decision == skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stages": [{"name": "other", "ask": ["a"]}]}, "stage 'first' is not in this graph"),
        ({"stages": [{"name": "first", "ask": ["b"]}]}, "asked model 'a', which it does not"),
        ({"stages": [{"name": "first", "ask": ["a"], "samples": 2}]}, "another number of samples"),
        ({}, None),
    ],
)
def test_runs_of_another_shape_are_left_out_with_the_reason(
    changes: dict[str, Any], reason: str | None
) -> None:
    report = incompatibility(run(plan(two()), ASKED), two(**changes))
    assert report is None if reason is None else reason in str(report)


def test_a_gate_with_other_candidates_is_left_out() -> None:
    def gated(ask: list[str]) -> Graph:
        gate = {"by": "keywords", "rules": {name: [name] for name in ask}}
        return two(stages=[{"name": "only", "ask": ask, "gate": gate}])

    result = run(plan(gated(["a", "b"])), ASKED)
    assert incompatibility(result, gated(["a", "b"])) is None
    assert "a gate with other candidates" in str(incompatibility(result, gated(["a"])))


def test_counts_are_bounded_by_what_is_certain_and_what_is_possible() -> None:
    results = [run(plan(two(accept)), ASKED) for accept in (0.5, 0.8, 0.9)]
    report = compare(results, lambda result: replay(result, under(two(0.6))))
    assert (report.runs, dict(report.unknown)) == (3, {"second": 1})
    assert (report.old["status", "answered"], report.old["tier", "haiku"], report.old["tier", "sonnet"]) == (
        3,
        1,
        2,
    )
    assert (report.certain["status", "answered"], report.possible["status", "answered"]) == (2, 3)
    assert (report.certain["tier", "haiku"], report.possible["tier", "haiku"]) == (0, 0)
    assert (report.certain["tier", "sonnet"], report.possible["tier", "sonnet"]) == (2, 3)
    assert (report.certain["status", "abstained"], report.possible["status", "abstained"]) == (0, 1)
    assert report.tiers() == ["sonnet", "haiku"]
    assert report.highest is not None
    assert report.lowest < report.highest
    assert [change.unknown for change in report.changes] == ["second"]


def test_the_dearest_branch_bounds_a_gate_that_was_unsure() -> None:
    def gated(accept: float | None) -> Graph:
        gate = {"by": "keywords", "rules": RULES, "to": {"left": "cheap", "right": "dear"}, "accept": accept}
        stages = [
            {"name": "door", "gate": gate, "escalate": "end"},
            {"name": "cheap", "ask": ["b"], "escalate": "end"},
            {"name": "dear", "ask": ["c"]},
        ]
        return two(stages=stages, limits={"calls": 1})

    unsure = run(plan(gated(0.9)), ASKED)
    assert decided(unsure.trace) == [("door", "gate_unsure", None)]
    again = replay(unsure, under(gated(None)))
    assert (again.unknown, again.outcomes) == (
        "cheap", (ReplayOutcome("accepted", "cheap", "haiku"), ReplayOutcome("abstained")),
    )  # fmt: skip
    without_gate = unsure.model_copy(update={"trace": ()})
    again = replay(without_gate, under(gated(None)))
    assert (again.unknown, again.highest) == ("door", pytest.approx(2.3e-5))


def test_a_gate_that_would_pick_other_models_is_unknown() -> None:
    def picking(top: int) -> Graph:
        gate = {"by": "keywords", "rules": {"a": ["card"], "b": ["loan"]}, "top": top}
        return two(stages=[{"name": "only", "ask": ["a", "b"], "gate": gate}])

    result = run(plan(picking(1)), Request(text="loan"))
    assert replay(result, under(picking(1))).outcomes == (ReplayOutcome("accepted", "only", "haiku"),)
    assert replay(result, under(picking(2))).unknown == "only"
