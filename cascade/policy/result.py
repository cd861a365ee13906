"""What a trace amounts to: the answer, its status, and what the strongest model alone would have cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from cascade.records import Call, Status, Step
from cascade.spec.schema import Graph


class CandidateAnswer(NamedTuple):
    """A successful answer call, the step it belongs to, and its confidence if it was measured."""

    step: Step
    call: Call
    confidence: float | None
    calibrated: bool | None


def drafts(trace: Sequence[Step]) -> list[CandidateAnswer]:
    """Return one draft per step that has one: the evaluated one, else the first that is valid, or any."""
    found = []
    for step in trace:
        good = [call for call in step.calls if call.role == "answer" and call.error is None]
        if step.estimate is not None:
            chosen = step.calls[step.estimate.chosen]
            found.append(CandidateAnswer(step, chosen, step.estimate.confidence, step.estimate.calibrated))
        elif good:
            first = next((call for call in good if not call.invalid), good[0])
            found.append(CandidateAnswer(step, first, None, None))
    return found


def best_draft(trace: Sequence[Step]) -> CandidateAnswer | None:
    """Return the draft with the highest confidence (the later of equals), unevaluated ones last."""
    ranked = sorted(drafts(trace), key=lambda draft: -1.0 if draft.confidence is None else draft.confidence)
    return ranked[-1] if ranked else None


def summarize(graph: Graph, trace: Sequence[Step], *, cancelled: bool = False) -> dict[str, Any]:
    """Return the fields of a `Result` that follow from a finished `trace`, or from one cut off by the caller.

    `best_effort` needs an evaluated draft: without a measured confidence nothing is the best. An answer that
    was passed on only to be audited is accepted where no later stage accepts another.
    """
    if cancelled and not trace:
        return {"status": "cancelled", "rule": "cancelled"}
    last = trace[-1]
    audited = [step for step in trace if step.decision.rule == "audit"]
    if last.decision.action != "accept" and audited and not cancelled:
        last = audited[-1]
    accepted = not cancelled and (last.decision.action == "accept" or last.decision.rule == "audit")
    draft = drafts([last])[0] if accepted else best_draft(trace)
    status: Status = "cancelled" if cancelled else "accepted" if accepted else "abstained"
    if status == "abstained" and graph.on_exhausted == "best" and draft and draft.confidence is not None:
        status = "best_effort"
    fields: dict[str, Any] = {"status": status, "rule": last.decision.rule}
    if draft is None:
        return fields
    return fields | {
        "text" if status in ("accepted", "best_effort") else "draft": draft.call.text,
        "tool_calls": draft.call.tool_calls if status in ("accepted", "best_effort") else (),
        "confidence": draft.confidence,
        "calibrated": draft.calibrated,
        "stage": draft.step.stage,
        "model": draft.call.model,
        "tier": draft.call.tier,
    }


def person_next(graph: Graph, trace: Sequence[Step]) -> bool:
    """Return whether a person is asked by the stage that a waiting run has come to."""
    at = trace[-1].decision.to if trace else graph.stages[0].name
    return at is not None and any(graph.models[name].is_person for name in graph.stage(at).ask)
