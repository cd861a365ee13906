"""Checks of shadows and canaries: the model that is tried, and whether it could ever be asked."""

from __future__ import annotations

from collections.abc import Iterator

from cascade.policy.trials import worst_to_end
from cascade.records import Request
from cascade.spec.kinds import Loc, Problem
from cascade.spec.schema import Graph, Stage


def trial_problems(graph: Graph) -> Iterator[Problem]:
    """Yield what is wrong with the shadows and canaries of `graph`, whose names are known to be right."""
    for index, stage in enumerate(graph.stages):
        here: Loc = ("stages", index)
        for part, name in stage.tried_models.items():
            for text in _model(graph, stage, part, name):
                yield Problem((*here, part, "model"), text)
        for problem in [*_canary(stage), *_room(graph, stage)]:
            yield Problem((*here, *problem.loc), problem.text)


def _model(graph: Graph, stage: Stage, part: str, name: str) -> Iterator[str]:
    if name in stage.ask:
        yield f"stage {stage.name!r} asks {name!r} already; name the model that is to be compared with it"
    if len(stage.ask) > 1:
        asked = ", ".join(stage.ask)
        yield f"stage {stage.name!r} asks {asked}; a {part} is compared with one model, so let it ask one"
    people = [each for each in (name, *stage.ask) if graph.models[each].is_person]
    if people:
        yield f"{people[0]!r} is a person; only models are compared"


def _canary(stage: Stage) -> Iterator[Problem]:
    canary, check = stage.canary, stage.confidence
    if canary is None:
        return
    if check is None and canary.calibration is not None:
        yield Problem(("canary", "calibration"), "the stage has no 'confidence' to calibrate; remove it")
    if canary.accept is not None and stage.accept is None:
        yield Problem(("canary", "accept"), "the stage has no 'accept', so nothing is compared; remove it")
    if check is not None and check.calibration is not None and canary.calibration is None:
        text = (
            f"needs its own 'calibration': {check.calibration!r} belongs to the stage's model, and a raw "
            "score cannot be compared with a calibrated threshold; fit it: cascade calibrate GRAPH "
            f"{stage.name} --model {canary.model} --data ROWS --out FILE"
        )
        yield Problem(("canary",), text)


def _room(graph: Graph, stage: Stage) -> Iterator[Problem]:
    """Check that the limit of calls leaves a shadow room beside the longest way on."""
    most = graph.limits.calls
    if stage.shadow is None or most is None:
        return
    calls = worst_to_end(graph, stage.name, Request(text=""), lambda name: 0.0).calls
    if calls + 1 > most:
        text = f"limits.calls is {most}, and the stages from {stage.name!r} on make up to {calls}"
        yield Problem(("shadow",), f"{text}: the shadow could never be asked; raise it to {calls + 1}")
