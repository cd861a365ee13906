"""The picture of a run: its graph with the path highlighted, or the path alone if the graph is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from cascade.config.draw import GIVE_UP, START, Arrow, Box, Kind, outline
from cascade.config.drawing import Lit, drawing
from cascade.explain import compare
from cascade.explain.formatting import clean, format_number, format_pair
from cascade.records import Result, Step
from cascade.serve.charts import markup
from cascade.spec.schema import Graph
from cascade.svg import text

_NAME = 40  # characters of a name in a drawing
_WIDE = 560  # pixels; a wider drawing scrolls instead of shrinking until nobody can read it
_OTHERWISE = {
    "audit": "audited",
    "no_estimate": "not measurable",
    "no_draft": "no answer",
    "invalid": "not valid",
    "truncated": "cut off",
    "unavailable": "not available",
    "local_only": "must stay local",
    "over_cost": "over the cost limit",
    "over_seconds": "out of time",
    "over_calls": "over the call limit",
    "gate_failed": "gate failed",
    "policy_below": "policy: not asked to answer",
    "policy_abstain": "policy gives up",
    "policy_skip": "policy passes over",
    "early_exit": "stopped early",
    "hedged": "the other was faster",
    "cancelled": "cancelled",
    "breaker_open": "left alone for a while",
    "over_budget": "over the day's budget",
}
_ENDS = {
    "accepted": "answer",
    "best_effort": "best draft",
    "abstained": "no answer",
    "waiting": "waiting",
    "cancelled": "cancelled",
}


def picture(result: Result, graph: Graph | None) -> Markup:
    """Return the path of `result` as SVG: in its graph, or by itself where `graph` is None."""
    boxes, arrows, keys = _alone(result) if graph is None else _in_graph(result, graph)
    # Of an audited run, the answer may be an earlier stage's than the last.
    answers = {step.stage: key for step, key in zip(result.trace, keys, strict=False)}
    answered = answers.get(result.stage or "") if result.status == "accepted" else None
    ways = {(arrow.source, arrow.target) for arrow in arrows} & set(_ways(result, keys))
    lit = Lit(frozenset({START, *keys}), frozenset(ways), answered)
    stages = (clean(step.stage, _NAME) for step in result.trace)
    way = " → ".join(["request", *stages, _ENDS[result.status]])
    made = drawing(boxes, arrows, lit)
    style = "flow wide" if made.width > _WIDE else "flow"
    tag = made.tag(f'class="{style}" role="img"')
    return markup(f"{tag}{text(f'The way of this run: {way}', 'title')}{made.body}</svg>")


def _ways(result: Result, keys: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return the arrows that were taken with their labels; `keys`: the boxes after the request, in order."""
    labels = ["", *(_reason(step) for step in result.trace)]
    return {
        (source, target): label for source, target, label in zip([START, *keys], keys, labels, strict=False)
    }


def _reason(step: Step) -> str:
    """Return why the request went on from a step, in a few words."""
    rule, comparison = step.decision.rule, compare(step)
    if rule in ("below_threshold", "policy_below") and comparison is not None:
        return " < ".join(format_pair(comparison.value, comparison.threshold))
    best = max((step.gate or {}).items(), key=lambda item: item[1], default=None)
    if rule == "routed" and best is not None:
        return f"{clean(best[0], _NAME)} {format_number(best[1])}"
    if rule == "gate_unsure" and comparison is not None:
        return "gate " + " < ".join(format_pair(comparison.value, comparison.threshold))
    return _OTHERWISE.get(rule, "")


def _accepted(step: Step) -> str | None:
    """Return why a step answered, or would have but for an audit; None if it did not."""
    if step.decision.action != "accept" and step.decision.rule != "audit":
        return None
    comparison = compare(step)
    if comparison is None:
        return "unchecked"
    return " ≥ ".join(format_pair(comparison.value, comparison.threshold))


def _in_graph(result: Result, graph: Graph) -> tuple[list[Box], list[Arrow], list[str]]:
    boxes, arrows = outline(graph)
    if result.status == "cancelled":  # the graph's own end is not the one that it came to
        boxes = [replace(box, lines=(_ENDS["cancelled"],)) if box.key == GIVE_UP else box for box in boxes]
    names = {box.lines[0]: box.key for box in boxes if box.kind in ("asks", "branches")}
    keys = [names[step.stage] for step in result.trace]
    if result.trace and result.status != "accepted":
        target = result.trace[-1].decision.to
        keys.append(GIVE_UP if target is None else names[target])
    taken = _ways(result, keys)
    arrows = [
        replace(arrow, label=taken.get((arrow.source, arrow.target)) or arrow.label) for arrow in arrows
    ]
    accepted = {
        key: _accepted(step) for key, step in zip(keys, result.trace, strict=False) if _accepted(step)
    }
    return [replace(box, accepts=accepted.get(box.key, box.accepts)) for box in boxes], arrows, keys


def _alone(result: Result) -> tuple[list[Box], list[Arrow], list[str]]:
    boxes = [Box(START, "start", ("request",))]
    for index, step in enumerate(result.trace):
        kind: Kind = "branches" if step.decision.action == "route" else "asks"
        boxes.append(Box(f"step{index}", kind, _lines(step), _accepted(step)))
    if result.status != "accepted":
        boxes.append(Box(GIVE_UP, "end", (_ENDS[result.status],)))
    keys = [box.key for box in boxes[1:]]
    ways = _ways(result, keys)
    return boxes, [Arrow(source, target, label) for (source, target), label in ways.items()], keys


def _lines(step: Step) -> tuple[str, ...]:
    asked = dict.fromkeys((call.model, call.tier) for call in step.calls if call.role == "answer")
    lines = [step.stage, *(f"{model} ({tier})" for model, tier in asked)]
    if step.estimate is not None:
        lines.append(f"checked by {step.estimate.by}" + (", calibrated" if step.estimate.calibrated else ""))
    return tuple(clean(line, _NAME) or "—" for line in lines)
