"""The view of one run: what its page shows, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cascade.config.load import LoadedGraph
from cascade.explain import (
    StepExplanation,
    explain,
    step_sentences,
    step_verdict,
    total_sentences,
    what_if_sentence,
)
from cascade.explain.formatting import format_number, format_percent
from cascade.policy.budget import spent
from cascade.records import Call, Result, Step, Token
from cascade.serve import charts
from cascade.serve.path import picture

_MAX_BARS = 5  # labels, or branches of a gate
_MAX_TOKENS = 2000  # of a heat map
_HEAT = (0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1)  # lowest probability of each shade, from none to darkest


@dataclass(frozen=True)
class Bar:
    """A name with its share (0 to 1) and a bar; `chosen` marks the one that was taken."""

    name: str
    value: float
    bar: Markup
    chosen: bool


@dataclass(frozen=True)
class Shade:
    """A token as a heat map shows it: its text, its shade from 0 (certain) to 7, and its figures."""

    text: str
    level: int
    probability: float
    hint: str


@dataclass(frozen=True)
class HeatMap:
    """A generated answer as a heat map; `hidden` tokens are not shown."""

    call: Call
    shades: list[Shade]
    hidden: int


@dataclass(frozen=True)
class StepView:
    """A stage of a run: its sentences, and the charts of what was measured."""

    step: Step
    title: str
    sentences: list[str]
    what_if: str | None
    gate: list[Bar]
    labels: list[Bar]
    heats: list[HeatMap]
    confidence: Markup | None
    signals: dict[str, float]


@dataclass(frozen=True)
class CallRow:
    """A call with its bar in the waterfall."""

    stage: str
    call: Call
    bar: Markup


@dataclass(frozen=True)
class RunView:
    """Everything the page of a run shows besides the result itself."""

    picture: Markup
    graph_known: bool
    graph_changed: bool
    steps: list[StepView]
    totals: list[str]
    calls: list[CallRow]
    starts_recorded: bool


def view(result: Result, graphs: Mapping[str, LoadedGraph]) -> RunView:
    """Return what to show of `result`; `graphs` are the known graph files by `name@digest`."""
    loaded = graphs.get(result.graph)
    name = result.graph.partition("@")[0]
    graph = loaded.graph if loaded else None
    explanation = explain(result, graph)
    return RunView(
        picture=picture(result, graph),
        graph_known=loaded is not None,
        graph_changed=loaded is None and any(other.graph.name == name for other in graphs.values()),
        steps=[
            _step(step, explained, loaded)
            for step, explained in zip(result.trace, explanation.steps, strict=True)
        ],
        totals=total_sentences(explanation),
        calls=list(_waterfall(result)),
        starts_recorded=starts_known(result),
    )


def _step(step: Step, explained: StepExplanation, loaded: LoadedGraph | None) -> StepView:
    taken = max((step.gate or {}).items(), key=lambda item: item[1], default=("", 0.0))[0]
    judged = _judged(step)
    return StepView(
        step=step,
        title=step_verdict(explained),
        sentences=step_sentences(explained),
        what_if=what_if_sentence(explained),
        gate=_bars(step.gate or {}, taken),
        labels=_bars(judged.labels or {}, judged.text) if judged is not None else [],
        heats=[_heat(call) for call in step.calls if call.tokens and call.role == "answer"],
        confidence=_confidence(step, loaded),
        signals=step.estimate.signals if step.estimate else {},
    )


def _judged(step: Step) -> Call | None:
    """Return the call whose labels are shown: the judged one, else the first that has labels."""
    if step.estimate is not None and step.estimate.chosen < len(step.calls):
        return step.calls[step.estimate.chosen]
    return next((call for call in step.calls if call.labels and call.role == "answer"), None)


def _bars(shares: Mapping[str, float], chosen: str) -> list[Bar]:
    ranked = sorted(shares.items(), key=lambda item: -item[1])[:_MAX_BARS]
    return [
        Bar(name, value, charts.bar(value, "" if name == chosen else "other"), name == chosen)
        for name, value in ranked
    ]


def _confidence(step: Step, loaded: LoadedGraph | None) -> Markup | None:
    estimate = step.estimate
    if estimate is None:
        return None
    threshold = step.decision.threshold
    if estimate.by == "policy":  # its threshold is one of its score, and its calibration its own
        return charts.gauge(min(1.0, max(0.0, estimate.score)), threshold, "Score")
    model = step.calls[estimate.chosen].model if estimate.chosen < len(step.calls) else ""
    known = {} if loaded is None else loaded.calibrations
    curve = known.get(f"{step.stage}/{model}", known.get(step.stage))
    if curve is None or not estimate.calibrated:
        return charts.gauge(estimate.confidence, threshold)
    return charts.calibration(curve, estimate.score, estimate.confidence, threshold)


def _heat(call: Call) -> HeatMap:
    shades = [_shade(token) for token in call.tokens[:_MAX_TOKENS]]
    return HeatMap(call, shades, len(call.tokens) - len(shades))


def _shade(token: Token) -> Shade:
    probability = min(1.0, math.exp(min(0.0, token.logprob)))
    level = sum(probability < limit for limit in _HEAT)
    more = (("margin", token.margin), ("entropy", token.entropy))
    figures = [f"{name} {format_number(value)} nats" for name, value in more if value is not None]
    return Shade(token.text, level, probability, ", ".join([format_percent(probability, 1), *figures]))


def _waterfall(result: Result) -> Iterator[CallRow]:
    """Yield the calls with bars that show when they ran.

    Without recorded start times, stages are drawn one after the other, and the calls of a stage side by side
    after those of its gate.
    """
    known = starts_known(result)
    ends = [step.started + step.seconds if known else 0.0 for step in result.trace]
    total = max(result.seconds, spent(result.trace).seconds, *ends, 1e-9)
    begin = 0.0
    for step in result.trace:
        gated = max((call.seconds for call in step.calls if call.role == "gate"), default=0.0)
        for call in step.calls:
            start = begin if call.role == "gate" else begin + gated
            yield CallRow(step.stage, call, _span((call.started if known else start) / total, call, total))
        begin += step.seconds


def starts_known(result: Result) -> bool:
    """Return whether the trace has start times; only the first call may start at 0."""
    return any(call.started for step in result.trace for call in step.calls)


def _span(start: float, call: Call, total: float) -> Markup:
    style = "failed" if call.error is not None else "done" if call.role == "answer" else "gate"
    return charts.span(min(start, 1.0), min(call.seconds / total, 1.0 - min(start, 1.0)), style)


def heat_levels() -> Sequence[tuple[int, str]]:
    """Return the shades of a heat map and their probabilities, for its legend."""
    names = [f"≥ {limit:.0%}" for limit in _HEAT]
    return list(enumerate([*names, f"< {_HEAT[-1]:.0%}"]))
