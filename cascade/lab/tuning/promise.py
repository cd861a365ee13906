"""Keeping a promise: held-out rows tell how far along a path it holds, or how many rows it would need."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from cascade.errors import ConfigError
from cascade.lab.tuning.design import TARGETS, Design, chain_data, chains
from cascade.lab.tuning.ensemble import ensemble_of
from cascade.lab.tuning.search import ChainData, frontier, route_rows
from cascade.policy.apply import apply_policy, score_values
from cascade.policy.artifact import Certificate, Goal, Policy
from cascade.policy.bounds import fixed_sequence, loss_p_value, loss_upper, risk_upper, rows_needed
from cascade.policy.features import features_of
from cascade.policy.table import Column, Outcomes, Rows
from cascade.policy.thresholds import Thresholds

_MIN_ROWS = 20  # for an error rate to say something
_POWER = NormalDist().inv_cdf(0.8)  # with the rows needed, a true promise is supported four times in five
_SHARES = np.linspace(0.05, 1.0, 20)  # of the most confident rows, which a refusal looks at


@dataclass(frozen=True)
class Refusal:
    """The rows do not support the promise.

    `rows` is about how many rows would, in all; it is at least twice as many as there were. None if no number
    of rows like these would.
    """

    reason: str
    rows: int | None


def check_binary(outcomes: Outcomes) -> None:
    """Refuse graded qualities, because the bounds count errors.

    Raises:
        ConfigError: a quality is neither 0 nor 1.
    """
    for name, model in outcomes.models.items():
        graded = np.flatnonzero((model.credit != 0.0) & (model.credit != 1.0))
        if len(graded):
            row = int(graded[0])
            raise ConfigError(
                f"row {outcomes.ids[row]!r}: {name} has quality {model.quality[row]:g}; a promise counts "
                "errors, so each must be 0 or 1; or tune with --budget or --lambda"
            )


def certify(
    design: Design, held_out: Outcomes, goal: Goal
) -> tuple[Thresholds, tuple[Certificate, ...]] | None:
    """Return the boldest thresholds that the held-out rows support, with their certificates.

    Return None if there are none, or only ones that save nothing over asking the last model alone.

    The path was fixed before these rows were looked at, and testing stops at the first failure. If several
    stages promise something, each has its share of delta at every step of their common path.
    """
    features, rows = features_of(held_out), len(held_out)
    scores = [None if s is None else score_values(s.score, features, rows) for s in design.stages]
    data = chain_data(held_out, design.chain, scores, goal)
    if design.gate is not None:
        data = replace(data, gate=score_values(design.gate.score, features, rows))
    passed = fixed_sequence(_holds(data, thresholds, design, goal) for thresholds in design.path)
    if not passed:
        return None
    thresholds = design.path[passed - 1]
    routing = route_rows(data, thresholds)
    if (routing.answered_by == data.checked).all() or routing.cost.mean() > data.cost[:, -1].mean():
        return None
    return thresholds, certificates(
        design.chain, routing.answered_by, data.quality, goal, design.promising, bounds=True
    )


def certificates(
    chain: tuple[str, ...], stage: Rows, quality: Column, goal: Goal, promising: int, *, bounds: bool
) -> tuple[Certificate, ...]:
    """Count errors on rows that fitted nothing.

    Args:
        chain: the models.
        stage: index of the model that answered each row, −1 if none did; shape (rows,).
        quality: quality of each answer; shape (rows, models).
        goal: max_risk gives one certificate per stage that accepts, max_loss one for the policy.
        promising: how many stages share delta.
        bounds: compute the bound of a loss, which takes a moment; otherwise it only tells whether it holds.
    """
    delta, rows = goal.delta or 0.0, len(stage)
    if goal.kind == "max_loss":
        answered = np.where(stage >= 0, quality[np.arange(rows), stage], 0.0)
        losses, gains = int((answered < quality[:, -1]).sum()), int((answered > quality[:, -1]).sum())
        holds = loss_p_value(losses, gains, rows, goal.value, delta) <= delta
        bound = loss_upper(losses, gains, rows, delta) if bounds else (0.0 if holds else 1.0)
        accepted = int((stage != len(chain) - 1).sum())
        return (
            Certificate(
                stage="policy", kind="max_loss", alpha=goal.value, delta=delta, bound=bound, rows=rows,
                accepted=accepted, errors=losses, gains=gains,
            ),
        )  # fmt: skip
    certified, share = [], delta / max(1, promising)
    for index, name in enumerate(chain[:-1]):
        taken = stage == index
        if accepted := int(taken.sum()):
            errors = int((1.0 - quality[taken, index]).sum())
            certified.append(
                Certificate(
                    stage=name, kind="max_risk", alpha=goal.value, delta=share,
                    bound=risk_upper(errors, accepted, share), rows=rows, accepted=accepted, errors=errors,
                )
            )  # fmt: skip
    return tuple(certified)


def renew(old: Policy, table: Outcomes, goal: Goal) -> tuple[Certificate, ...] | None:
    """Return new certificates if an old policy, unchanged, keeps `goal` on rows it was not tuned on."""
    if old.data_sha256 == table.sha256 or old.goal.kind != goal.kind:
        return None
    if any(name not in table.models for name in old.chain):
        return None
    if list(table.models)[-1] != old.chain[-1] and goal.kind == "max_loss":
        return None
    stage = apply_policy(old, table).answered_by
    quality = np.column_stack([table.models[name].credit for name in old.chain])
    promising = sum(isinstance(tuned.accept, float) for tuned in old.stages)
    certified = certificates(old.chain, stage, quality, goal, promising, bounds=True)
    return (
        certified
        if certified and all(certificate.bound <= certificate.alpha for certificate in certified)
        else None
    )


def refusal(fitting: Outcomes, goal: Goal, seed: int, top: str) -> Refusal:
    """Return why the rows do not support `goal`, and how many rows like these would."""
    if next(iter(fitting.models)) == top:
        return Refusal(
            f"{top} is the most accurate model, and none is cheaper: nothing can be saved; ask it alone, "
            "or name at least two with --chain, last the one that it is measured against",
            None,
        )
    ensemble, needs = ensemble_of(fitting, seed), []
    for names in chains(list(fitting.models), top):
        for target in TARGETS:
            stages = [ensemble.stage(names[: i + 1], names[-1], target) for i in range(len(names) - 1)]
            scores = [None if stage is None else stage.held_out for stage in stages]
            data = chain_data(fitting, names, scores, goal)
            need = _risk_rows(data, goal) if goal.kind == "max_risk" else _loss_rows(data, goal)
            needs += [] if need is None else [need]
    what = "error among the accepted" if goal.kind == "max_risk" else f"loss against {top}"
    promise = f"{what} of at most {goal.value:g} with probability {1 - (goal.delta or 0.0):g}"
    rows = 2 * len(fitting)
    if not needs:
        return Refusal(
            f"no setting errs little enough for {promise}: better signals are needed, not rows", None
        )
    return Refusal(
        f"{rows} rows do not support {promise} for less than {top} alone costs", max(2 * rows, 2 * min(needs))
    )


def _risk_rows(data: ChainData, goal: Goal) -> int | None:
    """Return how many held-out rows the last checked stage needs, over shares of its best rows."""
    score, wrong = data.scores[:, -1], 1.0 - data.quality[:, data.checked - 1]
    if not np.isfinite(score).any():
        return None
    errors, needs = np.cumsum(wrong[np.argsort(-score, kind="stable")]), []
    for share in _SHARES:
        rows = round(share * len(score))
        if rows < _MIN_ROWS:
            continue
        error_rate = errors[rows - 1] / rows
        need = rows_needed(goal.value, goal.delta or 0.0, float(error_rate))
        needs += [] if need is None else [math.ceil(need / share)]
    return min(needs, default=None)


def _loss_rows(data: ChainData, goal: Goal) -> int | None:
    """Return how many held-out rows the easiest promise needs, by the normal approximation."""
    reach = NormalDist().inv_cdf(1.0 - (goal.delta or 0.0) / 2) + _POWER
    needs = []
    for thresholds in frontier(data):
        routing = route_rows(data, thresholds)
        if (routing.answered_by == data.checked).all():
            continue
        loss = data.quality[:, -1] - routing.quality
        spare = goal.value - float(loss.mean())
        if spare > 0:
            min_rows = 2.0 * math.log(2.0 / (goal.delta or 1.0)) / goal.value
            needs.append(math.ceil(max(min_rows, reach**2 * float(loss.var()) / spare**2)))
    return min(needs, default=None)


def _holds(data: ChainData, thresholds: Thresholds, design: Design, goal: Goal) -> bool:
    stage = route_rows(data, thresholds).answered_by
    certified = certificates(design.chain, stage, data.quality, goal, design.promising, bounds=False)
    return all(certificate.bound <= certificate.alpha for certificate in certified)
