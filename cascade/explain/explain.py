"""A run in plain words, for someone who did not write its graph."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from cascade.explain.context import StepContext
from cascade.explain.formatting import (
    clean,
    fill,
    format_duration,
    format_number,
    format_pair,
    format_time,
    format_usd,
    quoted,
)
from cascade.explain.reasons import SKIPPED, reason
from cascade.records import Baseline, Call, Estimate, Result, Step
from cascade.spec.schema import Graph

_MARGINAL = "The confidence is so near the threshold that the model's numerical noise could have turned this."
_NARROW, _WIDE = 40, 100  # columns of readable prose


def explain(result: Result, graph: Graph | None = None, *, width: int | None = None) -> str:
    """Return why each stage of a run decided as it did, and what would have changed that.

    Args:
        result: the run.
        graph: the graph it ran on, to name what was not reached; everything else is in the trace.
        width: columns to fill; default: the terminal's (or COLUMNS), 40 to 100.
    """
    columns = width or min(max(shutil.get_terminal_size().columns, _NARROW), _WIDE)
    blocks = [
        "\n".join(fill(line, columns, hang="  ") for line in _head(result)),
        *("\n".join(_step(StepContext(result, index, graph), columns)) for index in range(len(result.trace))),
        "\n".join(fill(line, columns, hang="  ") for line in _totals(result, graph)),
    ]
    return "\n\n".join(blocks)


def _head(result: Result) -> Iterator[str]:
    yield " · ".join(filter(None, (f"Run {result.run}", result.graph, format_time(result.started))))
    yield f"Asked: {quoted(result.request.text, 300)}" + (
        " (local only)" if result.request.local_only else ""
    )
    sure = (
        f", confidence {_sure(result.confidence, result.calibrated)}" if result.confidence is not None else ""
    )
    source = f"from {result.tier} ({result.model}) at stage {result.stage}{sure}"
    if result.status == "accepted":
        yield f"Answer: {quoted(result.text, 600)} {source}."
    elif result.status == "best_effort":
        yield f"Best effort, accepted by no stage: {quoted(result.text, 600)} {source}."
    elif result.status == "cancelled":
        yield "No answer: the run was cancelled."
    elif result.status == "waiting":
        yield "No answer yet: the run waits, for a person or for `cascade resume`."
    else:
        best = f" Best draft: {quoted(result.draft, 600)} {source}." if result.draft is not None else ""
        yield f"No answer: no stage accepted one.{best}"


def _sure(confidence: float, calibrated: bool | None) -> str:
    return format_number(confidence) + ("" if calibrated else " (uncalibrated)")


def _step(context: StepContext, width: int) -> Iterator[str]:
    step, decision = context.step, context.step.decision
    yield fill(
        f"{context.index + 1}. {step.stage}: {_verdict(step)} (rule {decision.rule})", width, hang="   "
    )
    for line in _evidence(step):
        yield fill(line, width, "   ", "  ")
    why, otherwise = reason(context)
    yield fill(why, width, "   ", "  ")
    if decision.marginal:
        yield fill(_MARGINAL, width, "   ", "  ")
    if otherwise is not None:
        yield fill(f"What if: {otherwise}", width, "   ", "  ")


def _verdict(step: Step) -> str:
    action, target = step.decision.action, step.decision.to
    if action == "accept":
        return "accepted"
    if action == "route":
        return f"routed to {target}"
    if step.decision.rule == "audit":
        return f"confident, passed on to {target} for an audit"
    if step.decision.rule == "cancelled":
        return "cancelled"
    done = "skipped" if step.decision.rule in SKIPPED else "not accepted"
    return f"{done}, escalated to {target}" if target else f"{done}, and no stage is left"


def _evidence(step: Step) -> Iterator[str]:
    """What was asked and measured: the gate's scores, each call, the estimate."""
    if step.gate:
        ranked = sorted(step.gate.items(), key=lambda item: -item[1])
        yield (
            "The gate scored "
            + ", ".join(f"{name} {format_number(score)}" for name, score in ranked[:6])
            + "."
        )
    samples = any(call.sample for call in step.calls)
    for index, call in enumerate(step.calls):
        chosen = step.estimate is not None and step.estimate.chosen == index and len(step.calls) > 1
        yield _call(call, sample=samples) + (" This one was judged." if chosen else "")
    if step.estimate is not None:
        yield _estimate(step.estimate, step.decision.threshold)
        yield from _rivals(step, step.estimate)


def _call(call: Call, *, sample: bool) -> str:
    who = f"{call.tier} ({call.model}{f', sample {call.sample + 1}' if sample else ''})"
    who = f"The gate's model, {who}," if call.role == "gate" else who
    took = f"{format_duration(call.seconds)}{'' if call.local else ', remote'}"
    if call.error is not None:
        return f"{who} failed after {took}: {clean(call.error, 300).rstrip('.')}."
    return f"{who} answered {quoted(call.text)} for {format_usd(call.cost_usd)} in {took}."


def _estimate(estimate: Estimate, threshold: float | None) -> str:
    signals = ", ".join(f"{name} {format_number(value)}" for name, value in estimate.signals.items())
    sure = estimate.confidence
    if estimate.by == "policy":
        threshold = None  # it is one of the score, not of the confidence
    confidence = format_number(sure) if threshold is None else format_pair(sure, threshold)[0]
    meaning = f"Uncalibrated: {confidence} is a raw score, not a measured chance of being right."
    if estimate.calibrated:
        score = format_number(estimate.score)
        meaning = f"The calibration turns the score {score} into a confidence of {confidence}."
    return f"Judged by {estimate.by}: {signals or 'no signals'}. {meaning}"


def _rivals(step: Step, estimate: Estimate) -> Iterator[str]:
    """The labels that came next, where the model scored a closed set."""
    chosen = step.calls[estimate.chosen] if estimate.chosen < len(step.calls) else None
    if chosen is None or not chosen.labels:
        return
    others = sorted(chosen.labels.items(), key=lambda item: -item[1])
    named = [
        f"{quoted(name, 60)} {format_number(value)}"
        for name, value in others
        if name != chosen.text and value >= 0.001
    ]
    if named:
        yield f"It also thought of {', '.join(named[:3])}."


def _totals(result: Result, graph: Graph | None) -> Iterator[str]:
    calls = [call for step in result.trace for call in step.calls]
    remote = sum(not call.local for call in calls)
    where = f", {remote} of them remote" if remote else ", all on this machine" if calls else ""
    yield (
        f"Total: {format_usd(result.cost_usd)} and {format_duration(result.seconds)} for "
        f"{len(calls)} model call{'' if len(calls) == 1 else 's'}{where}."
    )
    if result.baseline is not None:
        yield _saving(result.baseline, result.cost_usd, answered=result.text is not None)
    if result.status == "abstained" and result.draft is not None and result.confidence is not None:
        yield "With `on_exhausted: best` the run would have returned its best draft, as best effort."
    if graph is not None and result.trace:
        seen = {step.stage for step in result.trace}
        unseen = [stage.name for stage in graph.stages if stage.name not in seen]
        if unseen:
            yield f"Not reached: {', '.join(unseen)}."


def _saving(baseline: Baseline, cost_usd: float, *, answered: bool) -> str:
    saved = baseline.cost_usd - cost_usd
    if saved >= 0 and not answered:
        verdict = "no saving, since this run gave no answer"
    elif saved == 0:
        verdict = "as much as this run"
    elif baseline.cost_usd > 0:
        verdict = f"this run cost {abs(saved) / baseline.cost_usd:.0%} {'less' if saved > 0 else 'more'}"
    else:
        verdict = f"this run cost {format_usd(-saved)} more"
    return f"{baseline.model} alone would have cost {format_usd(baseline.cost_usd)}: {verdict}. Assumed: " + (
        f"{clean(baseline.assumption, 300).rstrip('.')}."
    )
