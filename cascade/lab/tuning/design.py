"""Choosing the models and what judges them: every chain is tried on the fitting rows, out of fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cascade.lab.tuning.ensemble import Ensemble, StageModel, Target, ensemble_of, expected
from cascade.lab.tuning.search import (
    ChainData,
    Routing,
    best_thresholds,
    foreseen_bound,
    frontier,
    risk_path,
    route_rows,
)
from cascade.policy.artifact import Goal
from cascade.policy.bounds import fixed_sequence
from cascade.policy.table import Column, Outcomes
from cascade.policy.thresholds import Thresholds

MAX_CHAIN = 4  # models in a chain
_SAMPLE = 4000  # rows that chains are compared on; the chosen chain is fitted on all rows
_SMOOTHING = 300.0  # rows at which expected and observed quality weigh the same
_Z = 2.0  # standard errors of distance that a design keeps from a promised loss
TARGETS: tuple[Target, ...] = ("correct", "gain")


@dataclass(frozen=True)
class Design:
    """A chain with its scores and the path of thresholds to try.

    `cost` (USD) and `quality` per request are expected of the boldest thresholds that should keep the goal.
    `short` is by how much even the first ones are expected to miss it, with some bad luck.
    """

    chain: tuple[str, ...]
    stages: tuple[StageModel | None, ...]
    gate: StageModel | None
    path: list[Thresholds]
    cost: float
    quality: float
    short: float

    @property
    def promising(self) -> int:
        """How many stages accept anything anywhere on the path, and so share delta."""
        return promising(self.path)


def chains(models: Sequence[str], top: str | None) -> list[tuple[str, ...]]:
    """Return every choice of up to four models in the given order, ending in `top` if there is one."""
    helpers = [name for name in models if name != top]
    if top is not None:
        helpers = list(models[: list(models).index(top)])
        return [(*some, top) for size in range(1, MAX_CHAIN) for some in combinations(helpers, size)]
    return [some for size in range(1, MAX_CHAIN + 1) for some in combinations(helpers, size)]


def choose(fitting: Outcomes, goal: Goal, seed: int, top: str | None) -> Design | None:
    """Return the chain and target that do best on the fitting rows, out of fold."""
    sample = fitting
    if len(fitting) > _SAMPLE:
        sample = fitting.take(np.sort(np.random.default_rng(seed).permutation(len(fitting))[:_SAMPLE]))
    ensemble = ensemble_of(sample, seed)
    max_cost = math.inf if top is None else float(sample.models[top].cost_usd.mean())
    candidates: list[tuple[tuple[float, float], tuple[str, ...], Target]] = []
    for names in chains(list(fitting.models), top):
        # A risk is about correctness, and a single model has no score to train.
        for target in TARGETS[: 1 if len(names) == 1 or goal.kind == "max_risk" else None]:
            design = design_chain(ensemble, names, target, goal, len(fitting) / len(sample))
            if design is not None and (design.cost < max_cost or max_cost == 0.0):
                rank = (
                    (-design.quality, design.cost)
                    if goal.kind in ("budget", "lambda")
                    else (design.short, design.cost)
                )
                candidates.append((rank, names, target))
    if not candidates:
        return None
    _, names, target = min(candidates, key=lambda candidate: candidate[0])
    whole = ensemble if sample is fitting else ensemble_of(fitting, seed)
    return design_chain(whole, names, target, goal, 1.0)


def design_chain(
    ensemble: Ensemble, names: tuple[str, ...], target: Target, goal: Goal, scale: float
) -> Design | None:
    """Return a chain's path towards `goal`, or None if it leads nowhere.

    Args:
        ensemble: scores on the fitting rows, out of fold.
        names: the chain.
        target: what its scores are trained to predict.
        goal: what to keep.
        scale: rows that the promise will rest on, per row here.
    """
    stages = tuple(ensemble.stage(names[: i + 1], names[-1], target) for i in range(len(names) - 1))
    gate = ensemble.gate(names[0], names[-1]) if len(names) > 1 and goal.kind != "max_risk" else None
    data = chain_data(ensemble.outcomes, names, [s.held_out if s else None for s in stages], goal)
    if goal.kind in ("budget", "lambda"):
        data = smoothed(data)
    if gate is not None:
        data = replace(data, gate=gate.held_out)
    path, routings, short = _path(data, goal, scale)
    if not path:
        return None
    last = routings[-1]
    quality = float(last.quality.mean() + (goal.abstention_price or 0.0) * (last.answered_by < 0).mean())
    if goal.kind == "lambda":
        quality -= goal.value * float(last.cost.mean())
    return Design(names, stages, gate, path, float(last.cost.mean()), quality, short)


def smoothed(data: ChainData) -> ChainData:
    """Replace part of each quality by what its score predicts; the fewer rows, the greater the part.

    Thresholds chosen on a few observed outcomes follow their noise. Predictions hardly do, which is also what
    a copula model of the chain gains (arXiv 2501.09345). The last model's quality is predicted from the last
    stage's score.
    """
    share = _SMOOTHING / (_SMOOTHING + len(data.quality))
    scored = [index for index in range(data.checked) if np.isfinite(data.scores[:, index]).any()]
    quality = data.quality.copy()
    for index, by in [*((index, index) for index in scored), *((-1, index) for index in scored[-1:])]:
        predicted = expected(data.scores[:, by], data.quality[:, index])
        mixed = (1.0 - share) * data.quality[:, index] + share * predicted
        quality[:, index] = np.where(np.isnan(predicted), data.quality[:, index], mixed)
    return replace(data, quality=quality)


def promising(path: Sequence[Thresholds]) -> int:
    """Return how many stages accept anything anywhere on a path."""
    return sum(min(at) < math.inf for at in zip(*(thresholds.accept for thresholds in path), strict=True))


def _path(data: ChainData, goal: Goal, scale: float) -> tuple[list[Thresholds], list[Routing], float]:
    """Return thresholds from safe to bold, routings of those that should keep the goal, and a shortfall."""
    if goal.kind == "lambda":
        thresholds = best_thresholds(data, goal.value)
        return [thresholds], [route_rows(data, thresholds)], 0.0
    delta = (goal.delta or 0.0) / max(1, data.checked)
    if goal.kind == "max_risk":
        path = risk_path(data, goal.value, delta, scale)
        delta = (goal.delta or 0.0) / max(1, promising(path))
    else:
        path = frontier(data)
    routings = [route_rows(data, thresholds) for thresholds in path]
    if goal.kind == "budget":
        inside = [i for i, each in enumerate(routings) if each.cost.mean() <= goal.value]
        top = max(inside, key=lambda i: float(routings[i].quality.mean()), default=None)
        return ([], [], 0.0) if top is None else ([path[top]], [routings[top]], 0.0)
    if goal.kind == "max_risk":
        bounds = [_foreseen_risk(each, data.checked, delta, scale) for each in routings]
    else:
        bounds = [_foreseen_loss(data, each, scale) for each in routings]
    start = int(np.argmin(bounds)) if bounds else 0  # anything before is neither safer nor cheaper
    passed = fixed_sequence(bound <= goal.value for bound in bounds[start:])
    short = max(0.0, bounds[start] - goal.value) if bounds else 0.0
    return path[start:], routings[start : start + max(1, passed)], short


def _foreseen_risk(routing: Routing, checked: int, delta: float, scale: float) -> float:
    """Return the largest bound among the stages that accept anything."""
    bounds = [0.0]
    for index in range(checked):
        taken = routing.answered_by == index
        if taken.any():
            bounds.append(
                foreseen_bound(
                    scale * taken.sum(), scale * float((1.0 - routing.quality[taken]).sum()), delta
                )
            )
    return max(bounds)


def _foreseen_loss(data: ChainData, routing: Routing, scale: float) -> float:
    loss = data.quality[:, -1] - routing.quality
    return float(loss.mean() + _Z * loss.std() / math.sqrt(scale * len(loss)))


def chain_data(
    outcomes: Outcomes, names: Sequence[str], scores: Sequence[Column | None], goal: Goal
) -> ChainData:
    """Return a chain's columns. A stage without a score, whose call failed or was cut, never accepts."""
    models = [outcomes.models[name] for name in names]
    quality = np.column_stack([model.credit for model in models])
    cost = np.column_stack([model.cost_usd for model in models])
    failed = np.column_stack([model.failed for model in models])
    unscored = np.full(len(outcomes), np.nan)
    columns = [
        unscored if score is None else np.where(model.unscored, np.nan, score)
        for score, model in zip(scores, models, strict=False)
    ]
    matrix = np.column_stack(columns) if columns else np.zeros((len(outcomes), 0))
    return ChainData(quality, cost, matrix, None, goal.abstention_price, failed if failed.any() else None)
