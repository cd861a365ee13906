"""Deciding the rows of an outcome table by a tuned policy: pure, numpy only, no model is called.

`cascade.policy.tuned` decides a live or recorded run by the same scores and thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cascade.errors import ConfigError
from cascade.policy.artifact import Policy, Score
from cascade.policy.calibrate import Curve
from cascade.policy.features import Features, features_of, term_values
from cascade.policy.table import Column, Mask, ModelOutcomes, Outcomes, Rows

NOBODY, UNKNOWN = -1, -2  # in `Decisions.answered_by`


@dataclass(frozen=True)
class Decisions:
    """What a policy decides on each row of a table.

    Attributes:
        answered_by: index into the policy's stages; NOBODY where it abstains or every call failed, UNKNOWN
            where the table lacks the outcome of a model that would have been asked.
        stopped_at: index of the last stage asked, whether it answered or abstained; −1 where unknown.
        quality: of the answer; NaN where there is none.
        cost_usd, seconds: of all models asked; NaN where the table does not say.
        confidence: P(correct) of the answer; NaN where it was not measured.
        scores: model → its stage's score on every row that the stage asked, else NaN.
    """

    answered_by: Rows
    stopped_at: Rows
    quality: Column
    cost_usd: Column
    seconds: Column
    confidence: Column
    scores: Mapping[str, Column]


def walk_stages(start: Rows, stages: Iterable[tuple[Mask, Mask]]) -> tuple[list[Mask], Rows]:
    """Send rows through a chain of stages.

    Args:
        start: index of the stage at which each row starts; of any shape, that of all other arrays.
        stages: of each stage, where it accepts and where it ends the run without an answer; what it
            accepts is not ended.

    Returns:
        Of each stage, which rows ask it; and the index of the stage whose answer each row gets, or NOBODY.
    """
    waiting = np.ones(start.shape, dtype=bool)
    answered_by = np.full(start.shape, NOBODY, dtype=np.intp)
    asked = []
    for index, (accepts, ends) in enumerate(stages):
        here = waiting & (start <= index)
        accepted = here & accepts
        answered_by[accepted] = index
        waiting &= ~(accepted | (here & ends))
        asked.append(here)
    return asked, answered_by


def apply_policy(policy: Policy, outcomes: Outcomes) -> Decisions:
    """Decide every row of `outcomes`. A failed call escalates, as it does live, and its cost is paid.

    Raises:
        ConfigError: the table lacks a model of the policy.
    """
    if missing := [name for name in policy.chain if name not in outcomes.models]:
        known = ", ".join(outcomes.models)
        raise ConfigError(f"policy asks {', '.join(missing)}, which the outcome table lacks; known: {known}")
    rows, features = len(outcomes), features_of(outcomes)
    models = [outcomes.models[name] for name in policy.chain]
    unknown = [np.isnan(model.quality) & np.isnan(model.cost_usd) for model in models]
    start = _gate_start(policy, features, rows)
    scores = list(_stage_scores(policy, features, start, models))
    stages = []
    for index, (model, score, gone) in enumerate(zip(models, scores, unknown, strict=True)):
        accepts = policy.thresholds.accepts(index, score) & ~np.isnan(model.quality)
        stages.append((accepts, policy.thresholds.abstains(index, score) | gone))
    asked, answered_by = walk_stages(start, stages)
    quality, confidence = np.full(rows, np.nan), np.full(rows, np.nan)
    stopped_at, lost = np.full(rows, -1, dtype=np.intp), np.zeros(rows, dtype=bool)
    cost, seconds = np.zeros(rows), np.zeros(rows)
    for index, (stage, model, here) in enumerate(zip(policy.stages, models, asked, strict=True)):
        cost += np.where(here, model.cost_usd, 0.0)
        seconds += np.where(here, model.seconds, 0.0)
        stopped_at[here] = index
        lost |= here & unknown[index]
        accepted = answered_by == index
        quality[accepted] = model.quality[accepted]
        if stage.confidence is not None:
            confidence[accepted] = curve_values(stage.confidence, scores[index][accepted])
    cost[lost], seconds[lost], stopped_at[lost], answered_by[lost] = np.nan, np.nan, -1, UNKNOWN
    judged = {
        name: np.where(here & ~gone, score, np.nan)
        for name, here, gone, score in zip(policy.chain, asked, unknown, scores, strict=True)
    }
    return Decisions(answered_by, stopped_at, quality, cost, seconds, confidence, judged)


def _gate_start(policy: Policy, features: Features, rows: int) -> Rows:
    """Return the index of the stage at which each row starts, by the policy's prompt gate if it has one."""
    start = np.zeros(rows, dtype=np.intp)
    if policy.gate is not None:
        start[policy.thresholds.skips(score_values(policy.gate.score, features, rows))] = policy.skip_to
    return start


def _stage_scores(
    policy: Policy, features: Features, start: Rows, models: Iterable[ModelOutcomes]
) -> Iterator[Column]:
    """Yield each stage's score on every row; NaN without an answer to judge, or of a model that it reads."""
    skipped = set(policy.chain[: policy.skip_to])
    for stage, model in zip(policy.stages, models, strict=True):
        if stage.score is None:
            yield np.full(len(start), np.nan)
            continue
        score = score_values(stage.score, features, len(start))
        missing = np.isnan(model.quality) | ((start > 0) & bool(stage.score.models & skipped))
        if stage.refuses_truncated(policy):
            missing |= model.unscored
        yield np.where(missing, np.nan, score)


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
