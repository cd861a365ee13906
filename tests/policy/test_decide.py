"""Every rule, demanded from the pure functions that produce it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.policy.admission import admit
from cascade.policy.budget import Spend, over_limit, spent
from cascade.policy.decide import decide, route
from cascade.records import Call, Decision, Estimate, Request, Step
from cascade.spec.schema import Graph

GOOD = Call(model="a", tier="haiku", text="yes")
INVALID = Call(model="a", tier="haiku", text="{", meta={"invalid": "it: no JSON"})
CUT = Call(model="a", tier="haiku", text="The refund is", meta={"finish_reason": "length"})
FAILED = Call(model="a", tier="haiku", error="model 'a': no answer")
GATE = Call(model="g", tier="haiku", role="gate", text="left")


def graph(**changes: Any) -> Graph:
    scripted = {"kind": "scripted", "default": "x"}
    check = {"confidence": {"by": "labels"}, "accept": 0.9}
    base: dict[str, Any] = {
        "name": "g",
        "models": {"a": scripted, "b": scripted},
        "stages": [{"name": "first", "ask": ["a"], **check}, {"name": "last", "ask": ["b"], **check}],
    }
    return Graph.model_validate(base | changes)


def estimate(confidence: float) -> Estimate:
    return Estimate(
        by="labels", chosen=0, signals={"top1": confidence}, score=confidence, confidence=confidence
    )


@pytest.mark.parametrize(
    ("stage", "calls", "confidence", "action", "rule", "to"),
    [
        ("first", [GOOD], 0.9, "accept", "confident", None),
        ("first", [GOOD], 0.899, "escalate", "below_threshold", "last"),
        ("last", [GOOD], 0.899, "abstain", "below_threshold", None),
        ("first", [GOOD], None, "escalate", "no_estimate", "last"),
        ("last", [GOOD], None, "abstain", "no_estimate", None),
        ("first", [FAILED], None, "escalate", "no_draft", "last"),
        ("first", [], None, "escalate", "no_draft", "last"),
        ("first", [GATE, FAILED], None, "escalate", "no_draft", "last"),
        ("last", [FAILED], None, "abstain", "no_draft", None),
        ("first", [INVALID, FAILED], None, "escalate", "invalid", "last"),
        ("last", [INVALID], None, "abstain", "invalid", None),
        ("last", [INVALID, GOOD], 0.9, "accept", "confident", None),
        ("first", [CUT], 1.0, "escalate", "truncated", "last"),
        ("first", [CUT], 0.1, "escalate", "truncated", "last"),
        ("first", [CUT], None, "escalate", "no_estimate", "last"),
        ("last", [CUT], 0.9, "accept", "confident", None),
        ("last", [CUT], 0.1, "abstain", "below_threshold", None),
    ],
)
def test_a_checked_stage(
    stage: str, calls: list[Call], confidence: float | None, action: str, rule: str, to: str | None
) -> None:
    g = graph()
    decision = decide(g, g.stage(stage), calls, None if confidence is None else estimate(confidence))
    assert (decision.action, decision.rule, decision.to) == (action, rule, to)


def test_an_unchecked_stage_accepts_any_draft() -> None:
    g = graph(stages=[{"name": "only", "ask": ["a"]}])
    assert decide(g, g.stages[0], [GOOD], None).rule == "unchecked"
    assert decide(g, g.stages[0], [INVALID], None).detail == "a: it: no JSON"
    assert decide(g, g.stages[0], [FAILED], None) == Decision(
        action="abstain", rule="no_draft", detail="model 'a': no answer"
    )


def test_the_threshold_is_recorded_only_where_it_was_compared() -> None:
    g = graph()
    assert decide(g, g.stages[0], [GOOD], estimate(0.1)).threshold == 0.9
    assert decide(g, g.stages[0], [FAILED], None).threshold is None


NONE: dict[str, Any] = {"remote": [], "unavailable": {}, "used": Spend(), "worst": Spend(calls=1)}


@pytest.mark.parametrize(
    ("limits", "changes", "rule"),
    [
        ({}, {}, None),
        ({}, {"unavailable": {"a": "model 'a' needs KEY"}}, "unavailable"),
        ({"cost_usd": 0.01}, {"worst": Spend(cost_usd=0.0101)}, "over_cost"),
        ({"cost_usd": 0.01}, {"worst": Spend(cost_usd=0.01)}, None),
        ({"cost_usd": 0.01}, {"used": Spend(cost_usd=0.006), "worst": Spend(cost_usd=0.005)}, "over_cost"),
        ({"calls": 2}, {"used": Spend(calls=1), "worst": Spend(calls=1)}, None),
        ({"calls": 2}, {"used": Spend(calls=1), "worst": Spend(calls=2)}, "over_calls"),
        ({"seconds": 1}, {"used": Spend(seconds=1.0)}, "over_seconds"),
        ({"seconds": 1}, {"used": Spend(seconds=0.99)}, None),
    ],
)
def test_admission_prices_the_worst_case_ahead(
    limits: dict[str, Any], changes: dict[str, Any], rule: str | None
) -> None:
    g = graph(limits=limits)
    decision = admit(g, g.stages[0], Request(text="hi"), **(NONE | changes))
    assert (decision.rule if decision else None) == rule
    if decision:
        assert (decision.action, decision.to) == ("escalate", "last")


def test_a_local_only_request_is_kept_from_remote_models_before_anything_else() -> None:
    g = graph()
    both = NONE | {"remote": ["a"], "unavailable": {"a": "no key"}}
    decision = admit(g, g.stages[1], Request(text="hi", local_only=True), **both)
    assert decision is not None
    assert (decision.rule, decision.action) == ("local_only", "abstain")
    assert admit(g, g.stages[1], Request(text="hi"), **(NONE | {"remote": ["a"]})) is None


def branching(accept: float | None = None) -> Graph:
    gate = {
        "by": "keywords",
        "rules": {"l": ["left"], "r": ["right"]},
        "to": {"l": "x", "r": "y"},
        "accept": accept,
    }
    return graph(
        stages=[
            {"name": "door", "gate": gate, "escalate": "y"},
            {"name": "x", "ask": ["a"], "escalate": "end"},
            {"name": "y", "ask": ["b"]},
        ]
    )


def test_a_gate_routes_to_its_best_branch_or_escalates() -> None:
    g = branching(accept=0.6)
    routed = route(g, g.stages[0], {"l": 0.7, "r": 0.3})
    unsure = route(g, g.stages[0], {"l": 0.55, "r": 0.45})
    failed = route(g, g.stages[0], None)
    assert routed == Decision(action="route", rule="routed", threshold=0.6, to="x")
    assert unsure is not None
    assert (unsure.rule, unsure.to, unsure.threshold) == ("gate_unsure", "y", 0.6)
    assert failed is not None
    assert (failed.rule, failed.to) == ("gate_failed", "y")


def test_a_gate_over_models_lets_the_best_be_asked() -> None:
    gate = {"by": "keywords", "rules": {"a": ["x"], "b": ["y"]}}
    g = graph(stages=[{"name": "only", "ask": ["a", "b"], "gate": gate}])
    assert route(g, g.stages[0], {"a": 1.0, "b": 0.0}) is None
    failed = route(g, g.stages[0], None)
    assert failed is not None
    assert failed.rule == "gate_failed"


calls_strategy = st.lists(
    st.builds(
        Call,
        model=st.just("a"),
        tier=st.just("t"),
        role=st.sampled_from(["answer", "gate"]),
        error=st.none() | st.just("e"),
        cost_usd=st.floats(0, 1),
    ),
    max_size=4,
)


@given(calls_strategy, st.floats(0, 1), st.booleans())
def test_nothing_is_accepted_below_the_threshold_or_without_a_draft(
    calls: list[Call], confidence: float, measured: bool
) -> None:
    g = graph()
    decision = decide(g, g.stages[0], calls, estimate(confidence) if measured else None)
    drafted = any(call.role == "answer" and call.error is None for call in calls)
    assert (decision.action == "accept") == (drafted and measured and confidence >= 0.9)
    assert decision.action == "accept" or decision.to == "last"


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(0, 5), st.integers(1, 5), st.integers(1, 9)
)
def test_an_admitted_stage_can_never_break_the_limits(
    limit: float, used: float, worst: float, used_calls: int, worst_calls: int, calls: int
) -> None:
    limits = graph(limits={"cost_usd": limit, "calls": calls}).limits
    if over_limit(limits, Spend(used, 0, used_calls), Spend(worst, 0, worst_calls)) is None:
        assert used + worst <= limit
        assert used_calls + worst_calls <= calls


@given(st.lists(calls_strategy, max_size=4))
def test_spend_counts_every_call_of_every_step(steps: list[list[Call]]) -> None:
    decision = Decision(action="escalate", rule="no_draft")
    trace = [Step(stage="s", decision=decision, calls=tuple(calls), seconds=0.5) for calls in steps]
    spend = spent(trace)
    assert spend.calls == sum(map(len, steps))
    assert spend.cost_usd == pytest.approx(sum(call.cost_usd for calls in steps for call in calls))
    assert spend.seconds == pytest.approx(0.5 * len(steps))


def test_a_share_of_the_confident_answers_is_passed_on_for_an_audit() -> None:
    check = {"confidence": {"by": "labels"}, "accept": 0.9}
    first = {"name": "first", "ask": ["a"], **check, "audit_rate": 0.2}
    g = graph(stages=[first, {"name": "last", "ask": ["b"], **check, "audit_rate": 1.0}])
    runs = [f"run {number}" for number in range(2000)]
    found = [decide(g, g.stages[0], [GOOD], estimate(0.95), run) for run in runs]
    audits = [decision for decision in found if decision.rule == "audit"]
    assert 340 < len(audits) < 460
    assert {(d.action, d.threshold, d.to) for d in audits} == {("escalate", 0.9, "last")}
    assert {d.rule for d in found} == {"audit", "confident"}
    assert found == [decide(g, g.stages[0], [GOOD], estimate(0.95), run) for run in runs]
    assert {decide(g, g.stages[0], [GOOD], estimate(0.5), run).rule for run in runs} == {"below_threshold"}
    assert decide(g, g.stages[0], [GOOD], estimate(0.95)).rule == "confident"
    # Nobody is left to grade the last stage.
    assert decide(g, g.stages[1], [GOOD], estimate(0.95), "run").rule == "confident"


def test_a_stage_may_accept_what_was_cut_off() -> None:
    g = graph()
    first = g.stages[0].model_copy(update={"on_truncated": "accept"})
    assert decide(g, first, [CUT], estimate(0.9)).rule == "confident"
    assert decide(g, first, [CUT], estimate(0.1)).rule == "below_threshold"
    unchecked = g.stages[0].model_copy(update={"confidence": None, "accept": None})
    assert decide(g, unchecked, [CUT], None).rule == "unchecked"
