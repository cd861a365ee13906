"""A policy with all its thresholds moved together: the curve that its scores can reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.lab.evaluation.routing import POINTS, escalated
from cascade.policy.apply import curve_values, score_values, walk_stages
from cascade.policy.artifact import Policy, PolicyStage
from cascade.policy.features import Features, features_of
from cascade.policy.table import Column, Mask, ModelOutcomes, Outcomes

_TIE = 1e-9  # of the score in a confidence: equal confidences keep the order of their scores


@dataclass(frozen=True)
class Family:
    """What each row would get at each setting, from everything accepted at once to everything escalated.

    A setting is one threshold on P(correct) for every stage that has a score; the settings are quantiles of
    all these stages' confidences, ten steps for each stage. For two models this is exactly RouteLLM's
    protocol. Nobody abstains. Arrays are rows × settings.

    Attributes:
        strong: 1 where the last model is asked, else 0.
        quality: of the answer.
        cost_usd: of all models asked.
    """

    strong: NDArray[np.float64]
    quality: NDArray[np.float64]
    cost_usd: NDArray[np.float64]


def family(policy: Policy, outcomes: Outcomes, *, gated: bool) -> Family | None:
    """Return the family of `policy`, or None if it has no score to move.

    Args:
        policy: the policy.
        outcomes: rows on which every model of the policy has an outcome.
        gated: let the policy's prompt gate, at its own threshold, decide where each row starts; False leaves
            it out. A gate is moved itself only where no answer is scored.
    """
    rows, features = len(outcomes), features_of(outcomes)
    scored = [
        stage for stage in policy.stages[:-1] if stage.score and stage.accept not in ("always", "never")
    ]
    gate = policy.gate if gated or not scored else None
    if not scored and gate is None:
        return None
    settings = (POINTS - 1) * max(1, len(scored)) + 1
    lower = {stage.model: np.full((rows, settings), stage.accept == "never") for stage in policy.stages}
    lower[policy.chain[-1]] = np.zeros((rows, settings), dtype=bool)
    if scored:
        sure = np.concatenate([_confidence(stage, features, rows) for stage in scored])
        moved = escalated(-sure, settings).reshape(len(scored), rows, settings)
        lower |= {stage.model: moved[index] for index, stage in enumerate(scored)}
    start = np.zeros((rows, settings), dtype=np.intp)
    if gate is not None:
        need = score_values(gate.score, features, rows)
        skips = policy.thresholds.skips(need)[:, None] if scored else escalated(need, settings)
        start = np.where(skips, policy.skip_to, start)
    return _play(policy, outcomes, lower, start)


def _confidence(stage: PolicyStage, features: Features, rows: int) -> Column:
    """P(correct) of the stage's answers; its score stands for it where no curve was fitted."""
    if stage.score is None:
        return np.full(rows, np.nan)
    score = score_values(stage.score, features, rows)
    return score if stage.confidence is None else curve_values(stage.confidence, score) + _TIE * score


def _refused(policy: Policy, stage: PolicyStage, model: ModelOutcomes) -> Mask:
    """Where a stage accepts nothing at any setting."""
    return model.unscored if stage.refuses_truncated(policy) else model.failed


def _play(
    policy: Policy, outcomes: Outcomes, lower: dict[str, NDArray[np.bool_]], start: NDArray[np.intp]
) -> Family:
    """Send every row through the stages: `lower` says which rows each model's stage does not accept."""
    models = [outcomes.models[name] for name in policy.chain]
    nowhere = np.zeros(start.shape, dtype=bool)
    stages = [
        (~lower[stage.model] & ~_refused(policy, stage, model)[:, None], nowhere)
        for stage, model in zip(policy.stages[:-1], models, strict=False)
    ]
    asked, answered_by = walk_stages(start, [*stages, (~nowhere, nowhere)])
    quality, cost = np.full(start.shape, np.nan), np.zeros(start.shape)
    for index, (model, here) in enumerate(zip(models, asked, strict=True)):
        cost += np.where(here, model.cost_usd[:, None], 0.0)
        quality = np.where(answered_by == index, model.credit[:, None], quality)
    return Family(asked[-1].astype(float), quality, cost)
