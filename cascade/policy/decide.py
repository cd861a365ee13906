"""The one place where it is decided what happens after a stage. Pure: no models, no I/O, no clock."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from cascade.policy.thresholds import reaches
from cascade.records import (
    BudgetShortfall,
    Call,
    Decision,
    Estimate,
    Fact,
    GateCandidate,
    Rule,
)
from cascade.spec.schema import Graph, Stage

_COMPARED = frozenset({"confident", "audit", "below_threshold"})  # rules that compare a confidence


def decide(
    graph: Graph,
    stage: Stage,
    calls: Sequence[Call],
    estimate: Estimate | None,
    run: str | None = None,
) -> Decision:
    """Decide what happens after `stage` has asked its models: accept, escalate or abstain.

    Args:
        graph: the graph that `stage` belongs to.
        stage: the stage that has asked.
        calls: every call it made, failed ones and gates included.
        estimate: the checked draft; None if the check failed or there is none.
        run: the run's id, which draws the audits; without one nothing is audited.
    """
    unanswered = no_answer(graph, stage, calls)
    if unanswered is not None:
        return unanswered
    if stage.confidence is None:
        return Decision(action="accept", rule="unchecked")
    if estimate is None or stage.accept is None:
        return move_on(graph, stage, "no_estimate")
    target = graph.next_stage(stage.name)
    if target is not None and stage.on_truncated == "escalate" and calls[estimate.chosen].truncated:
        return move_on(graph, stage, "truncated")
    if reaches(estimate.confidence, stage.accept):
        if target is not None and audited(stage, run):
            return Decision(action="escalate", rule="audit", threshold=stage.accept, to=target)
        return Decision(action="accept", rule="confident", threshold=stage.accept)
    return move_on(graph, stage, "below_threshold", threshold=stage.accept)


def no_answer(graph: Graph, stage: Stage, calls: Sequence[Call]) -> Decision | None:
    """Decide what follows where none of `calls` is a valid answer; None if one is."""
    drafts = [call for call in calls if call.role == "answer" and call.error is None]
    if not drafts:
        errors = "; ".join(dict.fromkeys(call.error for call in calls if call.error))
        rule = _failed(calls)
        threshold = stage.accept if rule == "early_exit" else None
        return move_on(graph, stage, rule, errors or None, threshold=threshold)
    if all(call.invalid for call in drafts):
        reasons = dict.fromkeys(f"{call.model}: {call.invalid}" for call in drafts)
        return move_on(graph, stage, "invalid", "; ".join(reasons))
    return None


def mark_marginal(decision: Decision, confidence: tuple[float, float] | None) -> Decision:
    """Return `decision`, marked as marginal if its threshold lies within the range of the confidence."""
    if confidence is None or decision.threshold is None or decision.rule not in _COMPARED:
        return decision
    if confidence[0] < decision.threshold <= confidence[1]:
        return decision.model_copy(update={"marginal": True})
    return decision


def over_budget(graph: Graph, stage: Stage, shortfall: BudgetShortfall | str) -> Decision:
    """Decide what follows where a budget cannot pay the worst case of `stage`, or why none can be read."""
    if isinstance(shortfall, str):
        return move_on(graph, stage, "over_budget", shortfall)
    return move_on(graph, stage, "over_budget", facts=[shortfall])


def stopped(rule: Literal["hedged", "cancelled"], to: str | None) -> Decision:
    """Return the decision of a stage stopped at work: by the answer of stage `to`, or with the run."""
    return Decision(action="abstain" if to is None else "escalate", rule=rule, to=to)


def _failed(calls: Sequence[Call]) -> Rule:
    """Return by which rule a stage without a draft goes on."""
    answers = [call for call in calls if call.role == "answer"]
    if any(call.meta.get("finish_reason") == "early_exit" for call in answers):
        return "early_exit"
    if answers and all(call.meta.get("refused") == "breaker_open" for call in answers):
        return "breaker_open"
    return "no_draft"


def route(graph: Graph, stage: Stage, scores: Mapping[str, float] | None) -> Decision | None:
    """Decide what follows from a gate's `scores` over its candidates; None means: ask the best of them.

    Args:
        graph: the graph that `stage` belongs to.
        stage: a stage with a gate.
        scores: candidate → score; None if the gate could not score them.
    """
    if stage.gate is None:
        return None
    if not scores:
        return move_on(graph, stage, "gate_failed")
    best = max(scores, key=lambda name: scores[name])
    threshold = stage.gate.accept
    if threshold is not None and not reaches(scores[best], threshold):
        candidate = GateCandidate(name=best, score=scores[best])
        return move_on(graph, stage, "gate_unsure", facts=[candidate], threshold=threshold)
    if stage.gate.to is None:
        return None
    return Decision(action="route", rule="routed", threshold=threshold, to=stage.gate.to[best])


def audited(stage: Stage, run: str | None) -> bool:
    """Return whether a confident answer of `stage` is passed on for an audit in `run`; without one never."""
    return run is not None and lot(run, stage.name) < stage.audit_rate


def lot(run: str, name: str) -> float:
    """Return a number in [0, 1) that is random over runs and always the same for one, so that runs replay."""
    drawn = hashlib.sha256(f"{run}/{name}".encode()).digest()
    return int.from_bytes(drawn[:6]) / 2**48


def move_on(
    graph: Graph,
    stage: Stage,
    rule: Rule,
    detail: str | None = None,
    *,
    facts: Sequence[Fact] = (),
    threshold: float | None = None,
) -> Decision:
    """Return the decision to escalate by `rule`, or to abstain after the last stage.

    `threshold` is given only where one was compared.
    """
    target = graph.next_stage(stage.name)
    action = "abstain" if target is None else "escalate"
    return Decision(
        action=action, rule=rule, threshold=threshold, to=target, facts=tuple(facts), detail=detail
    )
