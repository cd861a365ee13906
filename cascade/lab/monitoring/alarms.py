"""After a promotion: alarms of the promoted stage, and the rollback that they may bring.

Three things are watched, each in the runs of the promoted graph only, and each by a test that may be asked as
often as one likes: whether scores drifted from the new model's calibration, whether graded answers are wrong
more often than the stage promises, and whether the model that was replaced, now the shadow, does better.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Literal

from cascade.config.load import LoadedGraph
from cascade.config.promotions import Promotion, holding, undo_promotion
from cascade.errors import ConfigError
from cascade.lab.monitoring.pairs import paired_rows
from cascade.lab.monitoring.tightening import promised
from cascade.policy.eprocess import evidence_above, reached, worse
from cascade.policy.trials import by_canary
from cascade.records import Record, Result
from cascade.spec.schema import Stage

_log = logging.getLogger("cascade.lab")
_MAX_LOG = 700.0


class Alarm(Record):
    """Evidence against a promoted model: its `kind`, its e-value, and what was seen in words."""

    kind: Literal["drift", "grades", "pairs"]
    e_value: float
    said: str


class PromotionWatch(Record):
    """The promotion that is in force in a graph, and the alarms since.

    `undone` says that this look rolled it back; `refused` says why it could not, though the stage has
    `on_alarm: rollback`.
    """

    stage: str
    old: str
    new: str
    at: str
    alarms: tuple[Alarm, ...] = ()
    undone: bool = False
    refused: str | None = None


def watch_promotion(
    loaded: LoadedGraph,
    runs: Iterable[Result],
    grades: Mapping[str, bool],
    *,
    drifted: Mapping[str, float],
    delta: float,
) -> PromotionWatch | None:
    """Return the alarms of the promotion in force, and roll it back if its stage says so; None without one.

    Args:
        loaded: the graph, as its file is now.
        runs: the stored runs of this version of it.
        grades: run → whether its answer was right.
        drifted: stage → e-value, of the stages that drifted.
        delta: the probability of a false alarm, ever, of the grades.

    Raises:
        ConfigError: the history of promotions is broken.
    """
    promotion = holding(loaded.path)
    stages = {stage.name: stage for stage in loaded.graph.stages}
    if promotion is None or promotion.stage not in stages:
        return None
    stage, results = stages[promotion.stage], list(runs)
    found = [
        _of_drift(stage, drifted),
        _of_grades(loaded, stage, results, grades, delta),
        _of_pairs(stage, promotion, results, grades),
    ]
    alarms = tuple(alarm for alarm in found if alarm is not None)
    watch = PromotionWatch(
        stage=stage.name, old=promotion.old, new=promotion.new, at=promotion.at, alarms=alarms
    )
    return _undo(loaded, watch) if alarms and stage.on_alarm == "rollback" else watch


def _undo(loaded: LoadedGraph, watch: PromotionWatch) -> PromotionWatch:
    why = "alarm: " + "; ".join(alarm.said for alarm in watch.alarms)
    try:
        undo_promotion(loaded.path, why)
    except ConfigError as error:
        _log.warning("%s: not rolled back: %s", loaded.path, error)
        return watch.model_copy(update={"refused": str(error)})
    _log.warning("%s: %s is rolled back to %s at %s: %s", loaded.path, watch.new, watch.old, watch.stage, why)
    return watch.model_copy(update={"undone": True})


def _of_drift(stage: Stage, drifted: Mapping[str, float]) -> Alarm | None:
    if stage.name not in drifted:
        return None
    return Alarm(kind="drift", e_value=drifted[stage.name], said="its scores drifted from the calibration's")


def _of_grades(
    loaded: LoadedGraph, stage: Stage, results: Iterable[Result], grades: Mapping[str, bool], delta: float
) -> Alarm | None:
    """Bet that the graded answers of the stage are wrong more often than it promises."""
    if stage.accept is None and loaded.policy is None:
        return None
    _, alpha, _ = promised(loaded, stage)
    right = [grades[result.run] for result in results if result.run in grades and _accepted(result, stage)]
    wrong = right.count(False)
    evidence = evidence_above({1.0: wrong, 0.0: len(right) - wrong}, alpha, 0.0)
    if not reached(evidence, delta):
        return None
    said = f"{wrong} of {len(right)} graded answers are wrong, at most {alpha:.3g} was promised"
    return Alarm(kind="grades", e_value=_value(evidence), said=said)


def _accepted(result: Result, stage: Stage) -> bool:
    if result.status != "accepted" or result.stage != stage.name:
        return False
    return not any(by_canary(step) for step in result.trace if step.stage == stage.name)


def _of_pairs(
    stage: Stage, promotion: Promotion, results: Iterable[Result], grades: Mapping[str, bool]
) -> Alarm | None:
    """Bet that the model is worse than its shadow, the one that it replaced."""
    if stage.shadow is None or (stage.ask, stage.shadow.model) != ([promotion.new], promotion.old):
        return None
    rows = paired_rows(stage, promotion.old, results, grades)
    seen = rows.swapped()
    evidence = worse(seen, promotion.epsilon)
    if not reached(evidence, promotion.delta):
        return None
    counts = f"{seen.worse:.0f} of {seen.rows:.0f} rows, better on {seen.better:.0f}"
    said = f"worse than {promotion.old}, which it replaced, on {counts}"
    return Alarm(kind="pairs", e_value=_value(evidence), said=said)


def _value(evidence: float) -> float:
    return math.exp(min(evidence, _MAX_LOG))
