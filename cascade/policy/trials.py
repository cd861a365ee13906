"""Shadows and canaries: which runs are drawn for one, and whether it may be asked. Pure, like `decide`.

Both are drawn by a hash of the run's id, so a replay draws the same runs. A shadow takes the lot that draws
audits: where `share` is at least `audit_rate`, every audited answer has a shadow beside it, and these runs
are a fair sample of the stage's requests in which a later stage tells who was right (`cascade promote`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cascade.policy.admission import Admission, Availability, admission
from cascade.policy.budget import Spend, worst_case
from cascade.policy.calibrate import Calibration
from cascade.policy.decide import lot
from cascade.records import Decision, Request, Step, Trial, UnavailableModel
from cascade.spec.schema import Graph, Stage

Models = Callable[[Stage], Availability]
Price = Callable[[str], float]


class DrawnStage(NamedTuple):
    """A stage as one run asks it, and what the trace says of its canary if the run was drawn for it."""

    stage: Stage
    canary: Trial | None = None


def with_canary(stage: Stage) -> Stage:
    """Return `stage` as its canary answers it: with the canary's model, calibration and threshold."""
    canary, check = stage.canary, stage.confidence
    if canary is None:
        return stage
    if check is not None:
        check = check.model_copy(update={"calibration": canary.calibration})
    accept = stage.accept if canary.accept is None else canary.accept
    changes = {"ask": [canary.model], "confidence": check, "accept": accept, "shadow": None, "canary": None}
    return stage.model_copy(update=changes)


def draw_canary(
    graph: Graph, stage: Stage, request: Request, used: Spend, run: str | None, models: Models
) -> DrawnStage:
    """Return `stage` as `run` asks it; a canary that may not be asked leaves it to the stage's own model.

    Args:
        graph: the graph that `stage` belongs to.
        stage: the stage about to start.
        request: the request being answered.
        used: what the run has used so far.
        run: the run's id; without one no canary is drawn.
        models: returns what is known about the models of a stage.
    """
    canary = stage.canary
    if canary is None or run is None or lot(run, f"{stage.name}/canary") >= canary.share:
        return DrawnStage(stage)
    trial = Trial(part="canary", model=canary.model, share=canary.share)
    instead = with_canary(stage)
    refusal = admission(graph, instead, request, used, models(instead)).refusal
    return DrawnStage(instead, trial) if refusal is None else DrawnStage(stage, _refused(trial, refusal))


def draw_shadow(
    graph: Graph,
    stage: Stage,
    request: Request,
    used: Spend,
    run: str | None,
    models: Models,
) -> tuple[Trial, Admission] | None:
    """Return what the trace says of a stage's shadow, and its admission; None if `run` has none.

    A shadow is left out unless the limits hold the worst case of the stage, of the shadow and of the most
    expensive way on together, so that it never keeps a later stage from starting.

    Args:
        graph: the graph that `stage` belongs to.
        stage: the stage that was admitted, as the run asks it.
        request: the request being answered.
        used: what the run has used so far.
        run: the run's id; without one no shadow is drawn.
        models: returns what is known about the models of a stage.
    """
    shadow = stage.shadow
    if shadow is None or run is None or lot(run, stage.name) >= shadow.share:
        return None
    beside = as_shadow(stage, shadow.model)
    known = models(beside)
    rest = worst_to_end(graph, stage.name, request, known.worst_cost)
    before = Spend(used.cost_usd + rest.cost_usd, used.seconds, used.calls + rest.calls)
    admitted = admission(graph, beside, request, before, known)
    trial = Trial(part="shadow", model=shadow.model, share=shadow.share)
    return trial if admitted.refusal is None else _refused(trial, admitted.refusal), admitted


def as_shadow(stage: Stage, model: str) -> Stage:
    """Return a stage that asks the shadow `model` of `stage` alone, once."""
    return stage.model_copy(
        update={"ask": [model], "samples": 1, "gate": None, "shadow": None, "canary": None}
    )


def worst_to_end(graph: Graph, name: str | None, request: Request, price: Price) -> Spend:
    """Return the most that a run can use from stage `name` on, that stage included, without its shadows.

    Args:
        graph: the graph.
        name: the stage; None is the end.
        request: the request; models that it may not be sent to cost nothing.
        price: the worst case of one call of a model, in USD.
    """
    known: dict[str, Spend] = {}

    def most(name: str | None) -> Spend:
        if name is None:
            return Spend()
        if name not in known:
            stage = graph.stage(name)
            here = worst_of(graph, stage, request, price)
            branches = list((stage.gate.to or {}).values()) if stage.gate is not None else []
            after = [most(target) for target in (*branches, graph.next_stage(name))]
            known[name] = Spend(
                here.cost_usd + max(each.cost_usd for each in after),
                calls=here.calls + max(each.calls for each in after),
            )
        return known[name]

    return most(name)


def worst_of(graph: Graph, stage: Stage, request: Request, price: Price) -> Spend:
    """Return the most that `stage` itself can use, answered by its own models or by its canary."""
    ways = [stage, with_canary(stage)] if stage.canary is not None else [stage]
    worst = []
    for way in ways:
        allowed = [name for name in way.ask if graph.models[name].local or not request.local_only]
        worst.append(worst_case(way, allowed, price))
    return Spend(max(each.cost_usd for each in worst), calls=max(each.calls for each in worst))


def calibration_of(stage: Stage, calibrations: Mapping[str, Calibration]) -> Calibration | None:
    """Return the calibration of a stage as a run asks it; a canary has its own, under `STAGE/MODEL`."""
    model = stage.ask[0] if len(stage.ask) == 1 else ""
    return calibrations.get(f"{stage.name}/{model}", calibrations.get(stage.name))


def by_canary(step: Step) -> bool:
    """Return whether a canary answered `step` in place of the stage's own model."""
    return any(
        isinstance(fact, Trial) and fact.part == "canary" and fact.refused is None
        for fact in step.decision.facts
    )


def noted(decision: Decision, facts: Sequence[Trial | None]) -> Decision:
    """Return `decision` with what the trace says of the trials that its run was drawn for."""
    known = [fact for fact in facts if fact is not None]
    return decision.model_copy(update={"facts": (*decision.facts, *known)}) if known else decision


def _refused(trial: Trial, refusal: Decision) -> Trial:
    reasons = [fact.reason for fact in refusal.facts if isinstance(fact, UnavailableModel)]
    return trial.model_copy(update={"refused": refusal.rule, "detail": "; ".join(reasons) or None})
