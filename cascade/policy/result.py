"""What a trace amounts to: the answer, its status, and what the strongest model alone would have cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cascade.policy.costs import CostCurve
from cascade.records import Baseline, Call, Result, Status, Step
from cascade.spec.parts import Price
from cascade.spec.schema import Graph

BYTES_PER_TOKEN = 4  # English; the range of it: code and JSON 3.3, other scripts from 1.8 (docs/trace.md)
_RANGE_PER_TOKEN = (5.5, 1.75)
_RANGE_OF_ANSWER = (0.5, 3.0)  # lengths of the model's answer, as multiples of the run's


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


def answer_call(result: Result) -> Call | None:
    """Return the call whose answer the result holds, if there is one."""
    for step in reversed(result.trace):
        if step.stage != result.stage:
            continue
        if step.estimate is not None:
            return step.calls[step.estimate.chosen]
        return next((c for c in step.calls if c.role == "answer" and c.error is None), None)
    return None


def finish_reason(result: Result) -> str:
    """Return how the answer of `result` ended: `tool_calls`, `length` if it was cut off, else `stop`."""
    call = answer_call(result)
    return "tool_calls" if result.tool_calls else "length" if call is not None and call.truncated else "stop"


def waits(graph: Graph, trace: Sequence[Step], asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields of a waiting run's `Result`; `asked` has a person's `model` and the `question`."""
    if asked is None:
        return {"status": "waiting"}
    name = asked["model"]
    return {
        "status": "waiting",
        "question": asked["question"],
        "stage": trace[-1].decision.to if trace else graph.stages[0].name,
        "model": name,
        "tier": graph.models[name].tier,
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
    name: str,
    price: Price,
    trace: Sequence[Step],
    prompt_bytes: int,
    answer: str | None,
    curve: CostCurve | None = None,
    most: tuple[float, float] = (math.inf, math.inf),
) -> Baseline:
    """Price one call of model `name`: the real one if the trace has it, else an estimate.

    Args:
        name: the baseline model.
        price: its price.
        trace: the run's steps.
        prompt_bytes: UTF-8 bytes of the prompt that the model would have read.
        answer: the run's answer or best draft; without `curve`, assumed to be about the baseline's, too.
        curve: what recorded calls of the model cost, if there are enough of them.
        most: the most prompt and answer tokens that a call can have, which cap the estimate from texts.
    """
    call = answered_by(name, trace)
    if call is not None:
        what = "its charge, a bound, as its server counted no tokens" if call.uncounted else "its real cost"
        return Baseline(
            model=name, cost_usd=call.cost_usd, assumption=f"{name} was asked: {what}", by="asked",
            low_usd=call.cost_usd, high_usd=call.cost_usd, prompt_bytes=prompt_bytes, bounded=call.uncounted,
        )  # fmt: skip
    if curve is not None:
        cost, low, high = curve.total([prompt_bytes])
        return Baseline(
            model=name, cost_usd=cost, by="calls",
            assumption=f"{name} asked once, as in {curve.calls} recorded calls of it (95 % interval)",
            low_usd=low, high_usd=high, calls=curve.calls, prompt_bytes=prompt_bytes,
        )  # fmt: skip
    return _from_text(name, price, prompt_bytes, len((answer or "").encode("utf-8", "replace")), most)


def answered_by(name: str, trace: Sequence[Step]) -> Call | None:
    """Return the first call of model `name` that answered."""
    calls = (call for step in trace for call in step.calls)
    return next(
        (call for call in calls if call.model == name and call.role == "answer" and call.error is None), None
    )


def _from_text(
    name: str, price: Price, prompt_bytes: int, answer_bytes: int, most: tuple[float, float]
) -> Baseline:
    """Estimate a call from the lengths of its texts, with the range that their tokens may have."""

    def cost(bytes_per_token: float, times: float) -> tuple[float, float, float]:
        tokens_in = min(most[0], math.ceil(prompt_bytes / bytes_per_token))
        tokens_out = min(most[1], max(1, math.ceil(times * answer_bytes / bytes_per_token)))
        return tokens_in, tokens_out, (tokens_in * price.input + tokens_out * price.output) / 1e6

    tokens_in, tokens_out, cost_usd = cost(BYTES_PER_TOKEN, 1.0)
    low, high = (cost(*each)[2] for each in zip(_RANGE_PER_TOKEN, _RANGE_OF_ANSWER, strict=True))
    return Baseline(
        model=name, cost_usd=cost_usd, by="text", low_usd=low, high_usd=high, prompt_bytes=prompt_bytes,
        assumption=(
            f"{name} asked once: {tokens_in} prompt and {tokens_out} answer tokens, from the text at "
            f"{BYTES_PER_TOKEN} bytes a token (1.75 to 5.5), its answer half to three times as long as ours, "
            "no reasoning tokens"
        ),
    )  # fmt: skip
