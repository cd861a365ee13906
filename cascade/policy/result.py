"""What a trace amounts to: the answer, its status, and what the strongest model alone would have cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cascade.records import Baseline, Call, Status, Step
from cascade.spec.parts import Price
from cascade.spec.schema import Graph

BYTES_PER_TOKEN = 4  # the usual figure for English; the assumption is recorded with each run


class CandidateAnswer(NamedTuple):
    """A successful answer call, the step it belongs to, and its confidence if it was measured."""

    step: Step
    call: Call
    confidence: float | None
    calibrated: bool | None


def drafts(trace: Sequence[Step]) -> list[CandidateAnswer]:
    """Return one draft per step that has one: the evaluated one, else the first that is valid, or any."""
    candidates = []
    for step in trace:
        good = [call for call in step.calls if call.role == "answer" and call.error is None]
        if step.estimate is not None:
            chosen = step.calls[step.estimate.chosen]
            candidates.append(
                CandidateAnswer(step, chosen, step.estimate.confidence, step.estimate.calibrated)
            )
        elif good:
            first = next((call for call in good if not call.invalid), good[0])
            candidates.append(CandidateAnswer(step, first, None, None))
    return candidates


def best_draft(trace: Sequence[Step]) -> CandidateAnswer | None:
    """Return the draft with the highest confidence (the later of equals), unevaluated ones last."""
    ranked = sorted(drafts(trace), key=lambda draft: -1.0 if draft.confidence is None else draft.confidence)
    return ranked[-1] if ranked else None


def summarize(graph: Graph, trace: Sequence[Step], *, cancelled: bool = False) -> dict[str, Any]:
    """Return the fields of a `Result` that follow from a finished `trace`, or from one cut off by the caller.

    `best_effort` needs a draft whose confidence was measured. An answer that was only passed on for an audit
    is accepted if no later stage accepts another one.
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


def baseline_model(graph: Graph, prices: Mapping[str, Price | None]) -> str | None:
    """Return the model that savings are measured against, or None if no model of `graph` costs anything.

    Args:
        graph: names it by `baseline`, or else it is the priced model of the latest stage that has one.
        prices: model name → price.
    """
    if graph.baseline is not None:
        return graph.baseline
    for stage in reversed(graph.stages):
        for name in stage.ask:
            price = prices[name]
            if price is not None and (price.input > 0 or price.output > 0):
                return name
    return None


def price_baseline(
    name: str, price: Price, trace: Sequence[Step], prompt_bytes: int, answer: str | None
) -> Baseline:
    """Price one call of model `name`: the real one if the trace has it, else an assumed one.

    Args:
        name: the baseline model.
        price: its price.
        trace: the run's steps.
        prompt_bytes: UTF-8 bytes of the prompt that the model would have read.
        answer: the run's answer or best draft; assumed to be the baseline's answer, too.
    """
    for step in trace:
        for call in step.calls:
            if call.model == name and call.role == "answer" and call.error is None:
                assumption = f"{name} was asked: its real cost"
                return Baseline(model=name, cost_usd=call.cost_usd, assumption=assumption)
    tokens_in = math.ceil(prompt_bytes / BYTES_PER_TOKEN)
    tokens_out = max(1, math.ceil(len((answer or "").encode()) / BYTES_PER_TOKEN))
    cost_usd = (tokens_in * price.input + tokens_out * price.output) / 1e6
    assumption = (
        f"{name} asked once: {tokens_in} prompt and {tokens_out} answer tokens "
        f"({BYTES_PER_TOKEN} bytes a token), no reasoning tokens"
    )
    return Baseline(model=name, cost_usd=cost_usd, assumption=assumption)
