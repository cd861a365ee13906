"""Explanations: one golden text for each rule, and for each way a run can end."""

from __future__ import annotations

import unicodedata
from typing import Any, get_args

import pytest
from drawn_records import values
from hypothesis import given, settings

from cascade.explain import Explanation, describe, describe_fact, explain, render_text
from cascade.explain.formatting import (
    format_duration,
    format_floor,
    format_number,
    format_pair,
    format_usd,
    quoted,
)
from cascade.policy.budget import Spend, over_limit
from cascade.records import (
    Baseline,
    BudgetShortfall,
    Call,
    CertifiedBound,
    Decision,
    Estimate,
    LimitShortfall,
    PolicyBasis,
    PolicySkip,
    RaisedThreshold,
    RemoteModels,
    Request,
    Result,
    Rule,
    Step,
    UnavailableModel,
)
from cascade.spec.parts import Limits
from cascade.spec.schema import Graph
from cascade.trace import redact

SCRIPTED: dict[str, Any] = {"kind": "scripted"}
GRAPH = Graph.model_validate(
    {
        "name": "support",
        "models": {"nano": SCRIPTED, "small": SCRIPTED, "strong": SCRIPTED},
        "stages": [
            {"name": "first", "ask": ["nano"], "confidence": {"by": "labels"}, "accept": 0.95},
            {"name": "second", "ask": ["small"], "confidence": {"by": "logprob"}, "accept": 0.9},
            {"name": "last", "ask": ["strong"]},
        ],
    }
)
DOOR = Graph.model_validate(
    {
        "name": "desk",
        "models": {"nano": SCRIPTED, "small": SCRIPTED, "strong": SCRIPTED},
        "stages": [
            {
                "name": "door",
                "gate": {
                    "by": "keywords",
                    "rules": {},
                    "to": {"bank": "banking", "home": "first"},
                    "accept": 0.6,
                },
            },
            {"name": "first", "ask": ["nano"], "escalate": "end"},
            {"name": "banking", "ask": ["small"]},
        ],
    }
)


def call(model: str = "nano", text: str = "card_arrival", **fields: Any) -> Call:
    tier = {"nano": "haiku", "small": "sonnet", "strong": "opus", "door": "haiku"}[model]
    return Call(model=model, tier=tier, text=text, **({"seconds": 0.004} | fields))


def step(stage: str, action: str, rule: str, *calls: Call, **fields: Any) -> Step:
    parts = {name: fields.pop(name) for name in ("threshold", "to", "facts", "detail") if name in fields}
    decision = Decision.model_validate({"action": action, "rule": rule, **parts})
    return Step(stage=stage, decision=decision, calls=calls, **({"seconds": 0.005} | fields))


def judged(confidence: float, *, calibrated: bool = True, chosen: int = 0, by: str = "labels") -> Estimate:
    signals = {"top1": 0.62, "margin": 0.31}
    return Estimate(
        by=by, chosen=chosen, signals=signals, score=0.62, confidence=confidence, calibrated=calibrated
    )


def result(*trace: Step, **fields: Any) -> Result:
    given: dict[str, Any] = {
        "run": "01KABCDEF",
        "graph": "support@9f2c41ab",
        "status": "abstained",
        "rule": trace[-1].decision.rule if trace else None,
        "started": "2026-11-21T03:40:12.000+00:00",
        "seconds": 0.018,
        "cost_usd": sum(call.cost_usd for step in trace for call in step.calls),
        "request": Request(text="where has my card got to?"),
        "trace": trace,
    }
    return Result(**(given | fields))


BELOW = step(
    "first", "escalate", "below_threshold",
    call(labels={"card_arrival": 0.62, "lost_card": 0.31, "oos": 0.0001}),
    estimate=judged(0.58), threshold=0.95, to="second",
)  # fmt: skip
CONFIDENT = step(
    "second", "accept", "confident",
    call("small", "lost_card", cost_usd=0.0004, seconds=0.012, local=False),
    estimate=judged(0.971, calibrated=False, by="logprob"), threshold=0.9, seconds=0.013,
)  # fmt: skip
ACCEPTED: dict[str, Any] = {"status": "accepted", "text": "lost_card", "stage": "second", "model": "small"}
ACCEPTED |= {"tier": "sonnet", "confidence": 0.971, "calibrated": False}


def text_of(run: Result, graph: Graph | None = None, *, width: int | None = None) -> str:
    return render_text(explain(run, graph), width=width)


def said(text: str) -> str:
    """The one step of an explanation, without what comes before and after."""
    return text.split("\n\n")[1]


def test_a_whole_run_reads_like_this() -> None:
    baseline = Baseline(model="strong", cost_usd=0.0021, assumption="strong asked once: 12 prompt tokens")
    run = result(BELOW, CONFIDENT, **ACCEPTED, baseline=baseline)
    assert (
        text_of(run, GRAPH, width=88)
        == """\
Run 01KABCDEF · support@9f2c41ab · 2026-11-21 03:40:12 UTC
Asked: `where has my card got to?`
Answer: `lost_card` from sonnet (small) at stage second, confidence 0.971
  (uncalibrated).

1. first: not accepted, escalated to second (rule below_threshold)
   haiku (nano) answered `card_arrival` for $0 in 4.0 ms.
   Judged by labels: top1 0.62, margin 0.31. The calibration turns the score 0.62 into a
     confidence of 0.58.
   It also thought of `lost_card` 0.31.
   Confidence 0.58 is less than the 0.95 that this stage asks for (accept).
   What if: haiku would have answered `card_arrival` at accept ≤ 0.58 (now 0.95);
     sonnet's call, $0.0004 and 13 ms would have been saved.

2. second: accepted (rule confident)
   sonnet (small) answered `lost_card` for $0.0004 in 12 ms, remote.
   Judged by logprob: top1 0.62, margin 0.31. Uncalibrated: 0.971 is a raw score, not a
     measured chance of being right.
   Confidence 0.971 reaches the 0.9 that this stage asks for (accept).
   What if: at any accept above 0.971 (now 0.9), the request would have gone on to last.

Total: $0.0004 and 18 ms for 2 model calls, 1 of them remote.
strong alone would have cost $0.0021: this run cost 81% less. Assumed: strong asked
  once: 12 prompt tokens.
Not reached: last."""
    )


CERTIFIED = PolicyBasis(
    digest="12ab34cd", certificate=CertifiedBound(promise="max_risk", alpha=0.1, delta=0.05, bound=0.0813)
)
LIMITS = Limits(cost_usd=0.001, seconds=2, calls=2)


def over(used: Spend, worst: Spend) -> LimitShortfall:
    """What the budget itself says of a stage that may not start."""
    shortfall = over_limit(LIMITS, used, worst)
    assert shortfall is not None
    return shortfall


def steered(score: float) -> Estimate:
    return Estimate(
        by="policy", chosen=0, signals={"confidence nano": 1.2}, score=score, confidence=0.9, calibrated=True
    )


FAILED = call("strong", "", error="model 'strong': HTTP 500 from the server.", seconds=2.5, local=False)
INVALID = call("strong", "{", cost_usd=0.002, meta={"invalid": "it: no JSON: Expecting value: line 1"})
CUT = call("strong", "The refund is", cost_usd=0.002, meta={"finish_reason": "length", "thinking": "Money."})
CASES: dict[str, tuple[Graph, Step, str]] = {
    "truncated": (GRAPH, step("second", "escalate", "truncated", CUT, to="last"), """\
1. second: not accepted, escalated to last (rule truncated)
   opus (strong) answered `The refund is` for $0.002 in 4.0 ms, and was cut off at its max_tokens.
     It thought first: `Money.`.
   Its answer was cut off, so it was not judged while a later stage is left.
   What if: with larger max_tokens, or on_truncated: accept, the answer would have been judged."""),
    "invalid": (GRAPH, step(
        "last", "abstain", "invalid", INVALID, detail="strong: it: no JSON: Expecting value: line 1",
    ), """\
1. last: not accepted, and no stage is left (rule invalid)
   opus (strong) answered `{` for $0.002 in 4.0 ms.
   Its answer is not the JSON or the tool calls that the request asks for: strong: it: no JSON:
     Expecting value: line 1.
   What if: an answer that satisfies the schema would have been judged; no stage accepts an invalid
     one."""),
    "unchecked": (GRAPH, step("last", "accept", "unchecked", call("strong", "oos", cost_usd=0.0123)), """\
1. last: accepted (rule unchecked)
   opus (strong) answered `oos` for $0.0123 in 4.0 ms.
   This stage does not check its answers: it accepts whatever it gets.
   What if: a `confidence` and an `accept` at this stage would have the answer judged first."""),
    "confident": (GRAPH, step(
        "first", "accept", "confident", call(), estimate=judged(0.99996), threshold=0.9999,
    ), """\
1. first: accepted (rule confident)
   haiku (nano) answered `card_arrival` for $0 in 4.0 ms.
   Judged by labels: top1 0.62, margin 0.31. The calibration turns the score 0.62 into a confidence
     of 0.99996.
   Confidence 0.99996 reaches the 0.9999 that this stage asks for (accept).
   What if: at any accept above 0.99996 (now 0.9999), the request would have gone on to second."""),
    "audit": (GRAPH, step(
        "first", "escalate", "audit", call(), estimate=judged(0.97), threshold=0.95, to="second",
    ), """\
1. first: confident, passed on to second for an audit (rule audit)
   haiku (nano) answered `card_arrival` for $0 in 4.0 ms.
   Judged by labels: top1 0.62, margin 0.31. The calibration turns the score 0.62 into a confidence
     of 0.97.
   Confidence 0.97 reaches the 0.95 that this stage asks for (accept). It was passed on all the
     same, drawn for an audit (audit_rate), so that a later stage grades it.
   What if: undrawn, it would have been accepted; nothing more was called afterwards."""),
    "below_threshold": (GRAPH, step(
        "first", "abstain", "below_threshold", call(sample=0), call("nano", "oos", sample=1),
        estimate=judged(0.9496, chosen=1, by="agreement"), threshold=0.95,
    ), """\
1. first: not accepted, and no stage is left (rule below_threshold)
   haiku (nano, sample 1) answered `card_arrival` for $0 in 4.0 ms.
   haiku (nano, sample 2) answered `oos` for $0 in 4.0 ms. This one was judged.
   Judged by agreement: top1 0.62, margin 0.31. The calibration turns the score 0.62 into a
     confidence of 0.9496.
   Confidence 0.9496 is less than the 0.95 that this stage asks for (accept).
   What if: haiku would have answered `oos` at accept ≤ 0.949 (now 0.95); nothing more was called
     afterwards."""),
    "no_estimate": (GRAPH, step(
        "second", "escalate", "no_estimate", call("small", "Sure!\n\x1b[31mHi"), to="last",
    ), """\
1. second: not accepted, escalated to last (rule no_estimate)
   sonnet (small) answered `Sure! ·[31mHi` for $0 in 4.0 ms.
   There is an answer, but nothing to judge it by: the log-probabilities of the answer's tokens
     could not be measured.
   What if: with a measured confidence the answer could have been accepted; without one it never is."""),
    "no_draft": (GRAPH, step("last", "abstain", "no_draft", FAILED, detail=FAILED.error), """\
1. last: not accepted, and no stage is left (rule no_draft)
   opus (strong) failed after 2.5 s, remote: model 'strong': HTTP 500 from the server.
   Its only call failed.
   What if: one call that works would have given an answer to judge."""),
    "unavailable": (GRAPH, step(
        "last", "abstain", "unavailable",
        facts=[UnavailableModel(model="strong", reason="model 'strong': OPENAI_API_KEY is not set")],
    ), """\
1. last: skipped, and no stage is left (rule unavailable)
   Nothing was called, because no model of this stage can be: model 'strong': OPENAI_API_KEY is not
     set.
   What if: with that put right, strong would have been asked."""),
    "early_exit": (GRAPH, step(
        "second", "escalate", "early_exit",
        call("small", "", error="stopped after 7 tokens: its confidence could no longer reach the threshold",
             tokens_out=7, meta={
                 "finish_reason": "early_exit", "spared_tokens_at_most": 57, "spared_seconds_at_most": 1.25,
             }),
        threshold=0.9, to="last",
    ), """\
1. second: not accepted, escalated to last (rule early_exit)
   sonnet (small) failed after 4.0 ms: stopped after 7 tokens: its confidence could no longer reach
     the threshold.
   It was stopped after 7 tokens: whatever came next, its confidence could not reach the 0.9 that
     this stage asks for (accept). That spared at most 57 tokens and, at the pace of what was
     written, 1.2 s.
   What if: without early_exit it would have been written to its end, and not accepted."""),
    "hedged": (GRAPH, step(
        "second", "escalate", "hedged", call("small", "", error="cancelled: hedged"), to="last",
    ), """\
1. second: not accepted, escalated to last (rule hedged)
   sonnet (small) failed after 4.0 ms: cancelled: hedged.
   It ran at the same time as last, which answered first; what was still under way was cancelled.
   What if: without hedge the stages would have been asked one after the other."""),
    "cancelled": (GRAPH, step(
        "second", "abstain", "cancelled", call("small", "", error="cancelled"),
    ), """\
1. second: cancelled (rule cancelled)
   sonnet (small) failed after 4.0 ms: cancelled.
   The run was cancelled while this stage was at work; a call that had begun may be billed."""),
    "breaker_open": (GRAPH, step(
        "last", "abstain", "breaker_open",
        facts=[UnavailableModel(
            model="strong", breaker=True,
            reason="model 'strong' is left alone: its circuit breaker is open after 5 failures in a row, "
            "next try in 12.0 s",
        )],
    ), """\
1. last: skipped, and no stage is left (rule breaker_open)
   Nothing was called, because it failed again and again: model 'strong' is left alone: its circuit
     breaker is open after 5 failures in a row, next try in 12.0 s.
   What if: once the breaker lets a call through, strong would have been asked."""),
    "over_budget": (GRAPH, step(
        "last", "abstain", "over_budget",
        facts=[BudgetShortfall(
            scope="graph:support", day="2026-11-21", allowed_usd=1.0, spent_usd=0.99, reserved_usd=0.0,
            worst_case_usd=0.02,
        )],
    ), """\
1. last: skipped, and no stage is left (rule over_budget)
   Nothing was called, because it could have cost more than is left for today: worst case $0.020000,
     $0.010000 left of $1.000000 for graph:support on 2026-11-21 ($0.000000 reserved).
   What if: with a larger budget (budgets), or tomorrow, strong would have been asked."""),
    "local_only": (GRAPH, step(
        "last", "abstain", "local_only", facts=[RemoteModels(models=("strong",))],
    ), """\
1. last: skipped, and no stage is left (rule local_only)
   Nothing was called, because the request must stay on this machine: strong would leave this
     machine.
   What if: without local_only, strong would have been asked."""),
    "over_cost": (GRAPH, step(
        "last", "abstain", "over_cost", facts=[over(Spend(0.0005, 0, 1), Spend(0.0007, 0, 1))],
    ), """\
1. last: skipped, and no stage is left (rule over_cost)
   Nothing was called, because it could have cost more than is left: worst case $0.000700, $0.000500
     left of $0.001000.
   What if: with a limit (limits.cost_usd) of at least $0.0012, strong would have been asked."""),
    "over_calls": (GRAPH, step(
        "last", "abstain", "over_calls", facts=[over(Spend(0, 0, 1), Spend(0, 0, 3))],
    ), """\
1. last: skipped, and no stage is left (rule over_calls)
   Nothing was called, because it makes more calls than are left: needs 3 calls, 1 left of 2.
   What if: with a limit (limits.calls) of at least 4, strong would have been asked."""),
    "over_seconds": (GRAPH, step(
        "last", "abstain", "over_seconds", facts=[over(Spend(0, 2.5, 1), Spend(0, 0, 1))],
    ), """\
1. last: skipped, and no stage is left (rule over_seconds)
   Nothing was called, because the time is used up: 2.500 s used of 2 s.
   What if: with a longer limit (limits.seconds), strong would have been asked."""),
    "routed": (DOOR, step(
        "door", "route", "routed", call("door", "bank", role="gate"),
        gate={"home": 0.2, "bank": 0.8}, threshold=0.6, to="banking",
    ), """\
1. door: routed to banking (rule routed)
   The gate scored bank 0.8, home 0.2.
   The gate's model, haiku (door), answered `bank` for $0 in 4.0 ms.
   The gate's best branch leads to banking.
   What if: branch home, which leads to first, would have been taken had it scored more than bank:
     0.8, not 0.2."""),
    "gate_unsure": (DOOR, step(
        "door", "escalate", "gate_unsure", gate={"home": 0.4567, "bank": 0.5433}, threshold=0.6, to="first",
    ), """\
1. door: not accepted, escalated to first (rule gate_unsure)
   The gate scored bank 0.543, home 0.457.
   The gate's best branch, bank, scored 0.543: less than the gate's accept, 0.6.
   What if: at the gate's accept ≤ 0.543 (now 0.6), branch bank would have been taken."""),
    "gate_failed": (DOOR, step("door", "escalate", "gate_failed", detail="door: no labels", to="first"), """\
1. door: not accepted, escalated to first (rule gate_failed)
   The gate could not score its branches: door: no labels.
   What if: a gate that works would have chosen a branch."""),
    "policy_accept": (GRAPH, step(
        "first", "accept", "policy_accept", call(), estimate=steered(0.71), threshold=0.65, facts=[CERTIFIED],
    ), """\
1. first: accepted (rule policy_accept)
   haiku (nano) answered `card_arrival` for $0 in 4.0 ms.
   Judged by policy: confidence nano 1.2. The calibration turns the score 0.71 into a confidence of
     0.9.
   The policy's score 0.71 reaches its threshold 0.65: policy 12ab34cd, certified error at most 0.1
     with probability 0.95 (bound 0.0813).
   What if: at any threshold above 0.71 (now 0.65), the request would have gone on to second."""),
    "policy_below": (GRAPH, step(
        "first", "escalate", "policy_below", call(), estimate=steered(0.61), threshold=0.65, to="second",
        facts=[CERTIFIED],
    ), """\
1. first: not accepted, escalated to second (rule policy_below)
   haiku (nano) answered `card_arrival` for $0 in 4.0 ms.
   Judged by policy: confidence nano 1.2. The calibration turns the score 0.61 into a confidence of
     0.9.
   The policy's score 0.61 is less than its threshold 0.65: policy 12ab34cd, certified error at most
     0.1 with probability 0.95 (bound 0.0813).
   What if: at a threshold of at most 0.61 (now 0.65) this answer would have been accepted; nothing
     more was called afterwards."""),
    "policy_abstain": (GRAPH, step(
        "first", "abstain", "policy_abstain", call(), estimate=steered(0.11), threshold=0.2,
        facts=[CERTIFIED],
    ), """\
1. first: not accepted, and no stage is left (rule policy_abstain)
   haiku (nano) answered `card_arrival` for $0 in 4.0 ms.
   Judged by policy: confidence nano 1.2. The calibration turns the score 0.11 into a confidence of
     0.9.
   The policy gives up here: score 0.11 is less than 0.2, so asking on is not worth it: policy
     12ab34cd, certified error at most 0.1 with probability 0.95 (bound 0.0813).
   What if: at a lower abstention threshold the request would have gone on to second."""),
    "policy_skip": (GRAPH, step(
        "first", "escalate", "policy_skip", to="second",
        facts=[PolicySkip(digest="12ab34cd", asks=("small", "strong"))],
    ), """\
1. first: skipped, escalated to second (rule policy_skip)
   Nothing was called, because the policy passes this stage over: policy 12ab34cd asks small,
     strong.
   What if: without the policy, nano would have been asked."""),
}  # fmt: skip


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(get_args(Rule))


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_is_explained(rule: str) -> None:
    graph, given, expected = CASES[rule]
    assert said(text_of(result(given), graph, width=100)) == expected


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_is_explained_without_the_graph_too(rule: str) -> None:
    assert f"(rule {rule})" in " ".join(text_of(result(CASES[rule][1]), width=60).split())


@pytest.mark.parametrize("rule", get_args(Rule))
def test_a_bare_step_of_any_rule_is_explained(rule: Rule) -> None:
    """A trace may come from a file: nothing but the rule need be there."""
    assert rule in text_of(result(step("s", "abstain", rule)), GRAPH, width=50)


@settings(max_examples=60, deadline=None)
@given(values(Result))
def test_any_run_is_explained_without_steering_the_terminal(run: Result) -> None:
    text = text_of(run, GRAPH, width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert not any(unicodedata.category(char) in ("Cc", "Cf") for char in text.replace("\n", ""))


def test_no_line_is_wider_than_asked_for() -> None:
    text = text_of(result(BELOW, CONFIDENT, **ACCEPTED), GRAPH, width=48)
    assert max(map(len, text.splitlines())) <= 48


def test_the_width_of_the_terminal_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, most in (("60", 60), ("300", 100), ("10", 40)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = text_of(result(BELOW, CONFIDENT, **ACCEPTED)).splitlines()
        assert most - 12 < max(map(len, lines)) <= most


def test_an_abstained_run_shows_its_best_draft_and_how_to_get_it() -> None:
    draft = {"draft": "card_arrival", "stage": "first", "model": "nano", "tier": "haiku", "confidence": 0.58}
    text = text_of(result(BELOW, CASES["unavailable"][1], **draft, calibrated=True), GRAPH, width=100)
    assert (
        "No answer: no stage accepted one. Best draft: `card_arrival` from haiku (nano) at stage first,\n"
        "  confidence 0.58." in text
    )
    assert "With `on_exhausted: best` the run would have returned its best draft, as best effort." in text
    assert "(now 0.95); nothing more was called afterwards" in " ".join(text.split())


def test_best_effort_is_never_called_accepted() -> None:
    fields = ACCEPTED | {"status": "best_effort", "rule": "unavailable"}
    text = text_of(result(BELOW, CASES["unavailable"][1], **fields), GRAPH, width=100)
    assert "Best effort, accepted by no stage: `lost_card` from sonnet (small)" in text


def test_a_waiting_run_says_so() -> None:
    assert "No answer yet: the run waits, for a person or" in text_of(result(BELOW, status="waiting"), GRAPH)


def test_a_run_without_steps_is_explained() -> None:
    text = text_of(result(), width=80)
    assert "Total: $0 and 18 ms for 0 model calls." in text


def test_costing_more_than_the_baseline_is_said() -> None:
    for alone, words in (
        (0.0001, "this run cost 300% more"),
        (0.0004, "as much as this run"),
        (0.0, "$0.0004 more"),
    ):
        baseline = Baseline(model="strong", cost_usd=alone, assumption="strong asked once")
        assert words in text_of(result(BELOW, CONFIDENT, **ACCEPTED, baseline=baseline), width=100)


def test_a_run_without_an_answer_saved_nothing() -> None:
    baseline = Baseline(model="strong", cost_usd=0.002, assumption="asked once")
    text = text_of(result(BELOW, baseline=baseline), width=100)
    assert "would have cost $0.002: no saving, since this run gave no answer. Assumed: asked once." in text


def test_a_run_without_texts_can_still_be_explained() -> None:
    text = text_of(redact(result(BELOW, CONFIDENT, **ACCEPTED)), GRAPH, width=100)
    assert "where" not in text
    assert "card" not in text
    assert "haiku (nano) answered `sha256:" in text
    assert "Confidence 0.58 is less than the 0.95" in text


def test_the_answer_it_got_in_the_end_is_recognised() -> None:
    text = text_of(result(BELOW, CONFIDENT, **(ACCEPTED | {"text": "card_arrival"})), GRAPH, width=120)
    assert (
        "haiku would have answered `card_arrival` at accept ≤ 0.58 (now 0.95), as the run did in the end;"
        in text
    )


def test_numbers_read_well_and_never_lie_about_a_threshold() -> None:
    assert [format_usd(value) for value in (0, 1234.5, 0.012, 0.00042, 4e-7)] == [
        "$0", "$1,234.5000", "$0.0120", "$0.00042", "$0.0000004"
    ]  # fmt: skip
    assert [format_duration(value) for value in (0.0004, 0.0421, 1.26, 150)] == [
        "0.4 ms",
        "42 ms",
        "1.3 s",
        "2.5 min",
    ]
    assert [format_number(value) for value in (0.58, 1.0, 0.0, 0.99996, 1e-9)] == [
        "0.58",
        "1",
        "0",
        "0.99996",
        "0",
    ]
    assert format_pair(0.94999, 0.95) == ("0.94999", "0.95")
    assert [format_floor(value) for value in (0.58, 0.5799, 0.00042, 1.0)] == [
        "0.58",
        "0.579",
        "0.00042",
        "1",
    ]
    assert quoted("a\u202eb\x07" + "c" * 300, 10) == "`a·b·ccccc…`"
    assert quoted("  ") == "an empty text"


def test_the_numbers_are_data_and_survive_json() -> None:
    explanation = explain(result(BELOW, CASES["over_cost"][1], **ACCEPTED), GRAPH)
    below, over_cost = explanation.steps
    assert below.comparison is not None
    assert (below.comparison.value, below.comparison.threshold, below.comparison.reached) == (
        0.58,
        0.95,
        False,
    )
    assert below.what_if is not None
    assert (below.what_if.setting, below.what_if.bound, below.what_if.value) == ("accept", "at_most", 0.58)
    assert [(each.name, each.score) for each in below.alternatives] == [("lost_card", 0.31)]
    assert over_cost.what_if is not None
    assert over_cost.what_if.value == pytest.approx(0.0012)
    assert (over_cost.what_if.now, over_cost.what_if.models) == (0.001, ("strong",))
    assert explanation.not_reached == ("second",)
    assert Explanation.model_validate_json(explanation.model_dump_json()) == explanation


def test_the_words_of_a_fact_are_made_from_its_numbers() -> None:
    raised = RaisedThreshold(alarm="01K", was=0.8, accept=None, rows=0, errors=0, audited=9, rows_needed=120)
    decision = Decision(action="accept", rule="confident", threshold=0.9, facts=(raised,), detail="and so")
    assert describe(decision) == (
        "tightened since drift (alarm in run 01K): nothing is accepted, was 0.8; 9 audited requests "
        "support no threshold; the next look needs at least 120 answers above one, "
        "if none of them is wrong; and so"
    )
    gated = PolicySkip(digest="12ab34cd", asks=("strong",), score=0.71234, skip_at=0.7)
    assert describe_fact(gated) == (
        "policy 12ab34cd: the prompt's score 0.7123 reaches 0.7000, so strong is asked at once"
    )
    assert describe(Decision(action="accept", rule="unchecked")) is None


def test_a_raised_threshold_is_told_wherever_it_was_compared() -> None:
    raised = RaisedThreshold(alarm="01K", was=0.9, accept=0.95, rows=40, errors=1, audited=50)
    decision = BELOW.decision.model_copy(update={"facts": (raised,)})
    text = text_of(result(BELOW.model_copy(update={"decision": decision})), GRAPH, width=400)
    assert (
        "The threshold was tightened since drift (alarm in run 01K): accept is 0.95, was 0.9; "
        "1 of 40 audited answers wrong." in text
    )
