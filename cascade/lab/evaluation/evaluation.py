"""Measuring a policy on an outcome table that it was not tuned on, with an interval for every figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.errors import ConfigError, RequestError
from cascade.lab.evaluation.confidences import ScoredAnswers, check_figures, confidences
from cascade.lab.evaluation.family import Family, family
from cascade.lab.evaluation.metrics import RESAMPLES, Column, Figure, Means, figure, resampled
from cascade.lab.evaluation.remarks import table_remarks
from cascade.lab.evaluation.routing import calls_needed, error_cost_area, gap_recovered
from cascade.lab.tables.outcomes import read_outcomes
from cascade.policy.apply import Decisions, apply_policy
from cascade.policy.artifact import Certificate, Policy, read_policy
from cascade.policy.table import Outcomes

BASIC = ("accuracy", "mean_cost_usd", "mean_seconds", "coverage", "selective_risk", "strong_share")
CURVE = ("apgr", "cpt50", "cpt80", "error_cost_area")
CHECKS = ("auroc", "aurc", "ece", "brier")
NO_CHECK = {"confidence": None, **{key: None for name in CHECKS for key in (name, f"{name}_ci")}}
UNKNOWN = -2  # in Decisions.answered_by


@dataclass(frozen=True)
class Evaluation:
    """What a policy does on an outcome table.

    Attributes:
        policy: the policy.
        outcomes: the rows on which its decisions are known; all figures are over these.
        unknown: number of rows left out because a model that would be asked has no outcome there.
        decisions: the policy's decisions, row by row.
        figures: name → value and interval.
        curve: (mean cost, accuracy) with all thresholds moved together; empty if there is none to move.
        checked: model → its confidences, the policy's own first, then the table's.
        judged: model → how good these confidences are, in the same order.
        slices: the basic figures for each value of each field.
        certificates: each promise beside what these rows say.
        remarks: what is worth nothing: a model that always gives one answer, a confidence that is worse than
            its raw score.
    """

    policy: Policy
    outcomes: Outcomes
    unknown: int
    decisions: Decisions
    figures: dict[str, Figure]
    curve: list[tuple[float, float]]
    checked: dict[str, list[ScoredAnswers]]
    judged: dict[str, list[dict[str, Any]]]
    slices: list[dict[str, Any]]
    certificates: list[dict[str, Any]]
    remarks: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON; null is what the rows cannot tell."""
        answered = self.decisions.answered_by
        shares = {name: float(np.mean(answered == k)) for k, name in enumerate(self.policy.chain)}
        return {
            "rows": len(self.outcomes),
            "unknown_rows": self.unknown,
            "chain": list(self.policy.chain),
            "goal": self.policy.goal.model_dump(mode="json", exclude_none=True),
            "tuned_on_these_rows": bool(self.outcomes.sha256)
            and self.outcomes.sha256 == self.policy.data_sha256,
            **_flat(self.figures),
            "answered_by": shares | {"nobody": float(np.mean(answered == -1))},
            "curve": [{"mean_cost_usd": cost, "accuracy": right} for cost, right in self.curve],
            "models": {name: self._model(name) for name in self.outcomes.models},
            "slices": self.slices,
            "certificates": self.certificates,
            "remarks": self.remarks,
        }

    def _model(self, name: str) -> dict[str, Any]:
        model = self.outcomes.models[name]
        graded = ~np.isnan(model.quality)
        checks = self.judged[name]
        return {
            "rows": int(graded.sum()),
            "accuracy": _mean(model.quality),
            "mean_cost_usd": _mean(model.cost_usd[graded]),
            "mean_seconds": _mean(model.seconds[graded]),
            **(checks[0] if checks else NO_CHECK),
            **({"reported": checks[1]} if len(checks) > 1 else {}),
        }


def evaluate(
    policy: Policy | str | Path,
    outcomes: Outcomes | str | Path,
    *,
    by: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Measure a policy on labelled rows that it was not tuned on.

    Args:
        policy: the policy, or its file.
        outcomes: the outcome table, or its file.
        by: fields to slice by.
        resamples: how many bootstrap resamples each interval is made of.
        seed: seed of the bootstrap.

    Raises:
        ConfigError: the policy is invalid, or the table lacks one of its models.
        RequestError: the table cannot be read or lacks a field of `by`, or no row's decision is known.
    """
    policy = policy if isinstance(policy, Policy) else read_policy(policy)
    outcomes = outcomes if isinstance(outcomes, Outcomes) else read_outcomes(outcomes)
    for name in by:
        if name not in outcomes.fields:
            fields = ", ".join(outcomes.fields) or "none"
            raise RequestError(f"no field {name!r} in the outcome table to slice by; known: {fields}")
    decisions = apply_policy(policy, outcomes)
    known = np.flatnonzero(decisions.answered_by != UNKNOWN)
    if not len(known):
        raise RequestError(
            f"none of {len(outcomes)} rows has the outcomes of the models that the policy asks "
            f"({', '.join(policy.chain)}); add them with 'cascade outcomes'"
        )
    table = outcomes.take(known) if len(known) < len(outcomes) else outcomes
    decisions = apply_policy(policy, table)
    columns = _columns(policy, decisions)
    curve, curve_figures = _curve(policy, table, resamples, seed)
    checked = {name: confidences(policy, table, decisions, name) for name in table.models}
    return Evaluation(
        policy=policy,
        outcomes=table,
        unknown=len(outcomes) - len(known),
        decisions=decisions,
        figures=_figures(columns, resamples, seed) | curve_figures,
        curve=curve,
        checked=checked,
        judged={
            name: [_judged(confidence, resamples, seed) for confidence in own]
            for name, own in checked.items()
        },
        slices=[
            part
            for name in by
            for part in _slices(name, table.fields[name], columns, checked, resamples, seed)
        ],
        certificates=[_compare_promise(each, policy, table, decisions) for each in policy.certificates],
        remarks=list(table_remarks(table.models, table.fields.get("label", ()), seed=seed)),
    )


def _judged(checked: ScoredAnswers, resamples: int, seed: int) -> dict[str, Any]:
    return {"confidence": checked.by, **check_figures(checked, resamples=resamples, seed=seed)}


def _flat(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return `{NAME: value, NAME_ci: [low, high]}`; None is what the rows cannot tell."""
    values: dict[str, Any] = {}
    for name, (value, low, high) in figures.items():
        values[name] = None if math.isnan(value) else value
        values[f"{name}_ci"] = None if math.isnan(low) else [low, high]
    return values


def _columns(policy: Policy, decisions: Decisions) -> dict[str, Column]:
    """Return columns of one number per row; every basic figure is a function of their means."""
    answered = decisions.answered_by >= 0
    timed = ~np.isnan(decisions.seconds)
    return {
        "answered": answered.astype(float),
        "right": np.where(answered, decisions.quality, 0.0),
        "cost": decisions.cost_usd,
        "timed": timed.astype(float),
        "seconds": np.where(timed, decisions.seconds, 0.0),
        "strong": (decisions.stopped_at == len(policy.stages) - 1).astype(float),
    }


def _figures(columns: Mapping[str, Column], resamples: int, seed: int) -> dict[str, Figure]:
    """Return the basic figures of decisions.

    accuracy: share of all rows answered right (an abstention is not right). mean_cost_usd: cost of all models
    asked. mean_seconds: the same, over rows whose models all report it. coverage: share answered.
    selective_risk: share wrong among the answered. strong_share: share of rows that asked the last model.
    """
    statistics = {
        "accuracy": lambda m: m["right"],
        "mean_cost_usd": lambda m: m["cost"],
        "mean_seconds": lambda m: m["seconds"] / m["timed"],
        "coverage": lambda m: m["answered"],
        "selective_risk": lambda m: 1.0 - m["right"] / m["answered"],
        "strong_share": lambda m: m["strong"],
    }
    means = resampled(columns, resamples=resamples, seed=seed)
    return {name: figure(statistic, means) for name, statistic in statistics.items()}


def _curve(
    policy: Policy, table: Outcomes, resamples: int, seed: int
) -> tuple[list[tuple[float, float]], dict[str, Figure]]:
    """Return the family's (cost, accuracy) points and figures; resamples keep the sample's thresholds."""
    whole = np.flatnonzero(~np.isnan([table.models[name].credit for name in policy.chain]).any(axis=0))
    rows = table.take(whole)
    plain = family(policy, rows, gated=False) if len(whole) else None
    gated = family(policy, rows, gated=True) if len(whole) and policy.gate else plain
    if plain is None or gated is None:
        return [], dict.fromkeys(CURVE, Figure(math.nan, math.nan, math.nan))
    means = resampled(_family_columns(policy, rows, plain, gated), resamples=resamples, seed=seed)

    def needed(level: float) -> Figure:
        return figure(
            lambda m: calls_needed(m["share"], m["quality"], m["quality"][:, 0], m["top"], level), means
        )

    def gap(m: Means) -> Column:
        return gap_recovered(m["share"], m["quality"], m["quality"][:, 0], m["top"])

    def area(m: Means) -> Column:
        return error_cost_area(m["cost"], 1.0 - m["paid_quality"], m["top_cost"])

    points = zip(means["cost"][0].tolist(), means["paid_quality"][0].tolist(), strict=True)
    figures = (figure(gap, means), needed(0.5), needed(0.8), figure(area, means))
    return list(points), dict(zip(CURVE, figures, strict=True))


def _family_columns(policy: Policy, rows: Outcomes, plain: Family, gated: Family) -> dict[str, Column]:
    top = rows.models[policy.chain[-1]]
    return {
        "share": plain.strong,
        "quality": plain.quality,
        "cost": gated.cost_usd,
        "paid_quality": gated.quality,
        "top": top.credit,
        "top_cost": top.cost_usd,
    }


def _slices(
    field: str,
    values: Sequence[str],
    columns: Mapping[str, Column],
    checked: Mapping[str, Sequence[ScoredAnswers]],
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return the basic figures for each value of a field, most frequent first; rows may lack a value ("")."""
    members: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        members.setdefault(value, []).append(row)
    slices = []
    for value, rows in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        part = _figures({name: column[rows] for name, column in columns.items()}, resamples, seed)
        models = {
            name: _judged(checks[0].within(np.array(rows)), resamples, seed)
            for name, checks in checked.items()
            if checks
        }
        slices.append({"field": field, "value": value, "rows": len(rows), **_flat(part), "models": models})
    return slices


def _compare_promise(
    promise: Certificate, policy: Policy, table: Outcomes, decisions: Decisions
) -> dict[str, Any]:
    """Compare a promise with rows that its certificate never saw.

    The promise `held` if the observed error, or loss, is at most alpha. `p_value` is the probability of at
    least this many errors if the true risk were alpha: unless it is small, a promise that did not hold here
    may still be true. A stage that accepts nothing breaks no promise.

    Raises:
        ConfigError: the certificate names a stage that the policy does not have.
    """
    answered = decisions.answered_by >= 0
    right = np.where(answered, decisions.quality, 0.0)
    if promise.kind == "max_risk":
        if promise.stage not in policy.chain:
            known = ", ".join(policy.chain)
            raise ConfigError(f"certificate of unknown stage {promise.stage!r}; known: {known}")
        here = decisions.answered_by == policy.chain.index(promise.stage)
        wrong = 1.0 - decisions.quality[here]
    else:
        top = table.models[policy.chain[-1]].credit
        here = ~np.isnan(top)
        wrong = top[here] - right[here]
    observed = float(wrong.mean()) if len(wrong) else None
    return {
        **promise.model_dump(mode="json", include={"stage", "kind", "alpha", "delta", "bound"}),
        "held": observed is None or observed <= promise.alpha + 1e-12,
        "observed": observed,
        "observed_rows": len(wrong),
        "p_value": _p_value(wrong, promise),
    }


def _p_value(wrong: NDArray[np.float64], promise: Certificate) -> float | None:
    if promise.kind != "max_risk" or not len(wrong) or not np.isin(wrong, (0.0, 1.0)).all():
        return None
    from scipy.stats import binom

    return float(binom.sf(wrong.sum() - 1, len(wrong), promise.alpha))


def _mean(column: Column) -> float | None:
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else None
