"""Deciding by a tuned policy: pure, numpy only, no model is called.

Of tables; `cascade.policy.tuned` decides a live or recorded run by the same scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.errors import ConfigError
from cascade.policy.artifact import Policy, PolicyStage, PromptGate, Score
from cascade.policy.calibrate import Curve
from cascade.policy.features import Features, features_of, term_values
from cascade.policy.table import Column, Outcomes


@dataclass(frozen=True)
class Decisions:
    """What a policy decides on each row of a table.

    Attributes:
        answered_by: index into the policy's stages; −1 where it abstains or every call failed, −2 where
            it cannot be known because the table lacks the outcome of a model that would have been asked.
        stopped_at: index of the last stage asked, whether it answered or abstained; −1 where unknown.
        quality: of the answer; NaN where there is none.
        cost_usd, seconds: of all models asked; NaN where the table does not say.
        confidence: P(correct) of the answer; NaN where it was not measured.
        scores: model → its stage's score on every row that the stage asked, else NaN.
    """

    answered_by: NDArray[np.intp]
    stopped_at: NDArray[np.intp]
    quality: Column
    cost_usd: Column
    seconds: Column
    confidence: Column
    scores: Mapping[str, Column]


def apply_policy(policy: Policy, outcomes: Outcomes) -> Decisions:
    """Decide every row of `outcomes`. A failed call escalates, as it does live, and its cost is paid.

    Raises:
        ConfigError: the table lacks a model of the policy.
    """
    if missing := [name for name in policy.chain if name not in outcomes.models]:
        known = ", ".join(outcomes.models)
        raise ConfigError(f"policy asks {', '.join(missing)}, which the outcome table lacks; known: {known}")
    rows = len(outcomes)
    features = features_of(outcomes)
    asked = np.ones(rows, dtype=bool) if policy.gate is None else ~_skips(policy.gate, features, rows)
    jumped = ~asked
    passed_over = set() if policy.gate is None else set(policy.chain[: policy.chain.index(policy.gate.to)])
    done = np.zeros(rows, dtype=bool)
    answered_by, stopped_at = np.full(rows, -1, dtype=np.intp), np.full(rows, -1, dtype=np.intp)
    quality, confidence = np.full(rows, np.nan), np.full(rows, np.nan)
    cost, seconds = np.zeros(rows), np.zeros(rows)
    scores: dict[str, Column] = {}
    for index, stage in enumerate(policy.stages):
        model = outcomes.models[stage.model]
        if policy.gate is not None and stage.model == policy.gate.to:
            asked |= ~done
        here = asked & ~done
        unknown = here & np.isnan(model.quality) & np.isnan(model.cost_usd)
        failed = here & np.isnan(model.quality)  # it was paid for and there is no answer
        answered_by[unknown], done = -2, done | unknown
        here &= ~unknown
        cost[here] += model.cost_usd[here]
        seconds[here] += model.seconds[here]
        stopped_at[here] = index
        score = np.full(rows, np.nan) if stage.score is None else score_values(stage.score, features, rows)
        if stage.score is not None and stage.score.models & passed_over:
            score = np.where(jumped, np.nan, score)  # who was not asked tells nothing
        score = np.where(failed, np.nan, score)
        scores[stage.model] = np.where(here, score, np.nan)
        accepted = here & ~failed & _accepts(stage, score)
        answered_by[accepted], quality[accepted] = index, model.quality[accepted]
        if stage.confidence is not None:
            confidence[accepted] = curve_values(stage.confidence, score[accepted])
        if stage.abstain_below is not None:
            done |= here & (score < stage.abstain_below)
        done |= accepted
    lost = answered_by == -2
    cost[lost], seconds[lost], stopped_at[lost] = np.nan, np.nan, -1
    return Decisions(answered_by, stopped_at, quality, cost, seconds, confidence, scores)


def routing_score(policy: Policy, outcomes: Outcomes) -> Column:
    """Return how much each row needs the last model, in [0, 1], for APGR and CPT.

    One minus the score of the last stage that has one, whether or not a row gets so far; else the gate's.

    Raises:
        ConfigError: the policy has neither, so that it routes nothing.
    """
    features = features_of(outcomes)
    for stage in reversed(policy.stages[:-1]):
        if stage.score is not None:
            return 1.0 - score_values(stage.score, features, len(outcomes))
    if policy.gate is None:
        raise ConfigError("policy has no score and no gate: every row goes the same way")
    return score_values(policy.gate.score, features, len(outcomes))


def score_values(score: Score, features: Features, rows: int) -> Column:
    """Return the score of each row; NaN where a feature is missing."""
    z = np.full(rows, score.bias)
    for term in score.terms:
        z += term.weight * (term_values(term, features) - term.mean) / term.scale
    for words in score.words:
        z[features.unread(words.model)] = np.nan
        row, bucket = features.words(words.model, len(words.weights))
        z += np.bincount(row, weights=np.array(words.weights)[bucket], minlength=rows)
    return np.asarray(0.5 * (1.0 + np.tanh(z / 2.0)))  # the logistic function, without overflow


def curve_values(curve: Curve, score: Column) -> Column:
    """Return `curve` at each score, as `Curve.apply` does for one; NaN stays NaN."""
    if curve.a is not None and curve.b is not None:
        value = 0.5 * (1.0 + np.tanh((curve.a * score + curve.b) / 2.0))
        return np.asarray(np.clip(value, 1e-9, 1.0 - 1e-9))
    return np.asarray(np.where(np.isnan(score), np.nan, np.interp(score, curve.x, curve.y)))


def _accepts(stage: PolicyStage, score: Column) -> NDArray[np.bool_]:
    if stage.accept == "always":
        return np.ones(len(score), dtype=bool)
    if stage.accept == "never":
        return np.zeros(len(score), dtype=bool)
    return np.asarray(score >= stage.accept)  # false where the score is NaN: no estimate escalates


def _skips(gate: PromptGate, features: Features, rows: int) -> NDArray[np.bool_]:
    return np.asarray(score_values(gate.score, features, rows) >= gate.skip_at)
