"""The answer, its status and the baseline are folds of the trace."""

from __future__ import annotations

from typing import Any

import pytest

from cascade.policy.result import baseline_model, best_draft, price_baseline, summarize
from cascade.records import Call, Decision, Estimate, Step
from cascade.spec.parts import Price
from cascade.spec.schema import Graph


def graph(on_exhausted: str = "abstain") -> Graph:
    return Graph.model_validate(
        {
            "name": "g",
            "on_exhausted": on_exhausted,
            "models": {"a": {"kind": "scripted"}, "b": {"kind": "scripted"}},
            "stages": [{"name": "first", "ask": ["a"]}, {"name": "last", "ask": ["b"]}],
        }
    )


def step(stage: str, text: str, confidence: float | None, action: str = "escalate", **call: Any) -> Step:
    rule = "confident" if action == "accept" else "below_threshold"
    estimate = None
    if confidence is not None:
        estimate = Estimate(by="labels", chosen=0, signals={}, score=confidence, confidence=confidence)
    answer = Call(**{"model": stage, "tier": "t", "text": text, "cost_usd": 0.5} | call)
    decision = Decision.model_validate({"action": action, "rule": rule})
    return Step(stage=stage, decision=decision, calls=(answer,), estimate=estimate)


def test_an_accepted_answer_is_the_last_steps_even_if_an_earlier_draft_was_surer() -> None:
    fields = summarize(graph(), [step("first", "no", 0.94), step("last", "yes", 0.91, "accept")])
    assert (fields["status"], fields["text"], fields["stage"], fields["confidence"]) == (
        "accepted", "yes", "last", 0.91,
    )  # fmt: skip


def test_an_abstained_run_has_no_text_and_its_best_draft() -> None:
    fields = summarize(graph(), [step("first", "maybe", 0.8), step("last", "no", 0.3, "abstain")])
    assert fields["status"] == "abstained"
    assert "text" not in fields
    assert (fields["draft"], fields["stage"], fields["confidence"]) == ("maybe", "first", 0.8)


def test_best_effort_returns_the_best_evaluated_answer_and_never_says_accepted() -> None:
    trace = [step("first", "maybe", 0.8), step("last", "no", None, "abstain")]
    fields = summarize(graph("best"), trace)
    assert (fields["status"], fields["text"]) == ("best_effort", "maybe")


def test_an_unevaluated_draft_is_never_best_effort() -> None:
    fields = summarize(graph("best"), [step("last", "no", None, "abstain")])
    assert (fields["status"], fields["draft"]) == ("abstained", "no")


def test_a_run_without_any_draft_has_neither_text_nor_draft() -> None:
    fields = summarize(graph("best"), [step("last", "", None, "abstain", error="down")])
    assert fields == {"status": "abstained", "rule": "below_threshold"}


def test_of_equal_drafts_the_later_is_best() -> None:
    best = best_draft([step("first", "x", 0.5), step("last", "y", 0.5)])
    assert best is not None
    assert best.call.text == "y"


def test_the_baseline_is_the_latest_priced_model_unless_the_graph_names_one() -> None:
    free, dear = Price(input=0, output=0), Price(input=1, output=2)
    assert baseline_model(graph(), {"a": dear, "b": free}) == "a"
    assert baseline_model(graph(), {"a": dear, "b": dear}) == "b"
    assert baseline_model(graph(), {"a": free, "b": None}) is None
    named = graph().model_copy(update={"baseline": "a"})
    assert baseline_model(named, {"a": dear, "b": dear}) == "a"


def test_the_baseline_uses_the_real_cost_where_the_model_was_asked() -> None:
    base = price_baseline("last", Price(input=1, output=2), [step("last", "x", 0.1)], 100, "x")
    assert base.cost_usd == 0.5
    assert "real cost" in base.assumption


def test_the_baseline_states_its_assumption_otherwise() -> None:
    base = price_baseline("opus", Price(input=1, output=10), [step("last", "x", 0.1)], 4000, "four")
    assert base.cost_usd == pytest.approx((1000 * 1 + 1 * 10) / 1e6)
    assert "1000 prompt and 1 answer tokens" in base.assumption


def test_an_audited_answer_stands_unless_a_later_stage_accepts_another() -> None:
    audited = step("first", "yes", 0.94)
    audited = audited.model_copy(update={"decision": Decision(action="escalate", rule="audit", to="last")})
    for trace in ([audited, step("last", "no", 0.3, "abstain")], [audited]):
        fields = summarize(graph(), trace)
        assert (fields["status"], fields["rule"], fields["text"], fields["confidence"]) == (
            "accepted", "audit", "yes", 0.94,
        )  # fmt: skip
    fields = summarize(graph(), [audited, step("last", "no", 0.91, "accept")])
    assert (fields["status"], fields["rule"], fields["text"], fields["stage"]) == (
        "accepted", "confident", "no", "last",
    )  # fmt: skip
