"""Checks of limits, gates, confidence and calibrations: each must be able to say both yes and no."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cascade.config.messages import quoted_names
from cascade.config.references import existing_file, fingerprint
from cascade.errors import ConfigError
from cascade.policy.calibrate import Calibration, read_calibration
from cascade.policy.trials import calibration_of, with_canary
from cascade.spec.kinds import Evidence, Loc, ModelFacts, ModelSettings, Problem
from cascade.spec.schema import Graph, Stage

Facts = Mapping[str, ModelFacts]


def worst_drafts(stage: Stage) -> int:
    """Return how many drafts a stage asks for at most."""
    asked = min(stage.gate.top, len(stage.ask)) if stage.gate is not None else len(stage.ask)
    return asked * stage.samples


def limit_problems(graph: Graph, facts: Facts) -> Iterator[Problem]:
    """Yield the limits under which a stage could never start, whatever the request."""
    limits = graph.limits
    for stage in graph.stages:
        calls = worst_drafts(stage) + (len(stage.gate.models) if stage.gate is not None else 0)
        if limits.calls is not None and calls > limits.calls:
            text = f"{limits.calls} calls: stage {stage.name!r} makes up to {calls}, so it could never start"
            yield Problem(("limits", "calls"), f"{text}; raise the limit")
        cost = _min_worst_cost(graph, stage, facts)
        if limits.cost_usd is not None and cost > limits.cost_usd:
            text = f"${limits.cost_usd:g}: stage {stage.name!r} may cost ${cost:g} for its answers alone"
            yield Problem(("limits", "cost_usd"), f"{text}; it can never start; raise it or lower max_tokens")


def _min_worst_cost(graph: Graph, stage: Stage, facts: Facts) -> float:
    """Return the worst case of a stage for an empty prompt, in USD; an unknown price counts as 0."""
    costs = []
    for name in stage.ask:
        model = graph.models.get(name)
        price = None if model is None else model.token_price()
        tokens = 0 if model is None else model.answer_tokens(facts[name])
        costs.append(tokens * price.output / 1e6 if price else 0.0)
    dearest = sorted(costs, reverse=True)[: stage.gate.top if stage.gate is not None else len(costs)]
    return stage.samples * sum(dearest)


def gate_problems(graph: Graph, facts: Facts) -> Iterator[Problem]:
    """Yield what is wrong with the gates: their candidates, `top` and `accept`."""
    for index, stage in enumerate(graph.stages):
        gate = stage.gate
        if gate is None:
            continue
        candidates = list(gate.to or stage.ask)
        here: Loc = ("stages", index, "gate")
        if gate.to is None and gate.top > len(stage.ask) > 0:
            yield Problem((*here, "top"), f"{gate.top} is more than the {len(stage.ask)} models in 'ask'")
        lowest = 1 / max(1, len(candidates))
        if gate.accept is not None and gate.accept <= lowest:
            text = f"{gate.accept:g} can never fire: the best of {len(candidates)} has at least {lowest:.3g}"
            yield Problem((*here, "accept"), f"{text}; raise it, or remove it")
        for problem in gate.check(candidates, graph.models, facts):
            yield Problem((*here, *problem.loc), problem.text)


def confidence_problems(graph: Graph, facts: Facts, base: Path) -> Iterator[Problem]:
    """Yield what is wrong with the stages' confidence: files, and models that lack the signal it needs."""
    for index, stage in enumerate(graph.stages):
        here: Loc = ("stages", index)
        models = [(name, graph.models[name]) for name in stage.ask if name in graph.models]
        if stage.canary is not None and (canary := graph.models.get(stage.canary.model)) is not None:
            models.append((stage.canary.model, canary))
        people = [name for name, model in models if model.is_person]
        if people and (len(stage.ask) > 1 or stage.samples > 1):
            text = f"model {people[0]!r} is a person: ask them alone, with one sample"
            yield Problem((*here, "samples" if stage.samples > 1 else "ask"), text)
        check = stage.confidence
        for problem in check.inspect(base) if check is not None else ():
            yield Problem((*here, "confidence", *problem.loc), problem.text)
        for name, model in models:
            why = model.repeats(facts[name])
            if stage.samples > 1 and why:
                text = f"{stage.samples} samples of {name!r} would be equal: {why}"
                yield Problem((*here, "samples"), text)
            evidence = None if check is None else check.evidence
            if evidence is not None and (reason := _lacks(model, evidence, name, facts[name])):
                yield Problem((*here, "confidence", "by"), reason)
        if check is not None and stage.ask and worst_drafts(stage) < check.min_drafts:
            text = f"{check.by!r} of a single draft says nothing; give 'samples', or ask several models"
            yield Problem((*here, "confidence", "by"), text)


def _lacks(model: ModelSettings, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
    """Return why the model never reports `evidence`; that an expert was learned, its file says."""
    if evidence != "learned":
        return model.lacks(evidence, name, facts)
    if facts.learned or facts.unknown:
        return None
    fix = "use signal 'top1', or an expert that cascade learn made"
    return f"model {name!r} has no learned head that says how sure it is; {fix}"


def read_calibrations(graph: Graph, facts: Facts, base: Path) -> tuple[dict[str, Calibration], list[Problem]]:
    """Return the calibration of each stage that has one, and what is wrong with them."""
    calibrations: dict[str, Calibration] = {}
    problems = []
    for place in _calibrated(graph):
        try:
            path = existing_file(place.file, base, "calibration file")
            calibrations[place.key] = calibration = read_calibration(path)
            reason = _mismatch(graph, place.stage, calibration, facts, base)
        except ConfigError as error:
            reason = str(error)
        if reason:
            text = f"{reason}; fit it: cascade calibrate GRAPH {place.stage.name} --data ROWS{place.options}"
            problems.append(Problem(place.loc, text))
    return calibrations, problems


class _Place(NamedTuple):
    """A stage as its own model or its canary answers it, with the calibration file that the graph names."""

    loc: Loc
    key: str
    stage: Stage
    file: str
    options: str = ""


def _calibrated(graph: Graph) -> Iterator[_Place]:
    for index, stage in enumerate(graph.stages):
        check, canary = stage.confidence, stage.canary
        if check is None:
            continue
        if check.calibration is not None:
            yield _Place(("stages", index, "confidence", "calibration"), stage.name, stage, check.calibration)
        if canary is not None and canary.calibration is not None:
            loc, options = ("stages", index, "canary", "calibration"), f" --model {canary.model}"
            key = f"{stage.name}/{canary.model}"
            yield _Place(loc, key, with_canary(stage), canary.calibration, options)


def _mismatch(graph: Graph, stage: Stage, calibration: Calibration, facts: Facts, base: Path) -> str | None:
    """Return why `calibration` does not belong to this stage, or None if it does."""
    check = stage.confidence
    if check is None:
        return None
    signal = check.signal_name
    if (calibration.by, calibration.signal) != (check.by, signal):
        was = f"by {calibration.by!r}, signal {calibration.signal!r}"
        now = f"by {check.by!r}, signal {signal!r}"
        return f"{check.calibration!r} was fitted {was}, but this stage goes {now}"
    if len(stage.ask) > 1:
        return f"{check.calibration!r} belongs to one model, but this stage asks {quoted_names(stage.ask)}"
    name = stage.ask[0] if stage.ask else ""
    model = graph.models.get(name)
    if model is None or facts[name].unknown:
        return None
    now = fingerprint(model, base, facts[name])
    if now == calibration.model_fingerprint:
        return None
    old = calibration.model_fingerprint[:12]
    return f"{check.calibration!r} is stale: fitted for model {old}…, {name!r} is {now[:12]}… now"


def accept_problems(graph: Graph, facts: Facts, calibrations: dict[str, Calibration]) -> Iterator[Problem]:
    """Yield the thresholds that accept nothing, or everything."""
    ways: list[tuple[Loc, Stage]] = []
    for index, stage in enumerate(graph.stages):
        ways.append((("stages", index, "accept"), stage))
        if stage.canary is not None and stage.canary.accept is not None:
            ways.append((("stages", index, "canary", "accept"), with_canary(stage)))
    for loc, stage in ways:
        check = stage.confidence
        if check is None or stage.accept is None:
            continue
        calibration = calibration_of(stage, calibrations)
        if check.calibration is not None and calibration is None:
            continue  # its file is already a problem
        if calibration is not None:
            low, high = calibration.lowest, calibration.highest
        else:
            low, high = _lowest_score(graph, stage, facts), 1.0
        if stage.accept > high:
            text = f"{stage.accept:g} can never be reached: the calibration gives at most {high:.6g}"
            yield Problem(loc, f"{text}; lower it, or nothing is ever accepted")
        elif stage.accept <= low:
            text = f"{stage.accept:g} can never fire: every confidence is at least {low:.6g}"
            # No threshold is above 1.
            fix = "raise it" if low < 1.0 else "check by what can tell answers apart, such as several samples"
            yield Problem(loc, f"{text}; {fix}, or remove 'confidence' and 'accept' to accept unchecked")


def _lowest_score(graph: Graph, stage: Stage, facts: Facts) -> float:
    """Return the lowest score that an uncalibrated check can give."""
    if stage.confidence is None:
        return 0.0
    counts = []
    for name in stage.ask:
        model = graph.models.get(name)
        labels = facts[name].labels if model is not None and model.answers_best_label else None
        counts.append(len(labels or ()))
    return stage.confidence.lowest_score(counts, worst_drafts(stage))
