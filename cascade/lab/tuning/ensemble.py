"""Learned scores: a ridge regression on the prompt's words, and a small ensemble of signals per stage.

Every score that thresholds are chosen on is out of fold: it was not fitted on the rows it is computed for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cascade.lab.tuning.evidence import MIN_SPREAD, design, stage_terms
from cascade.policy.artifact import Feature, Score, Term, Words
from cascade.policy.features import SHAPES, Features, features_of
from cascade.policy.table import Column, Outcomes, Rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Matrix = NDArray[np.float64]
Target = Literal["correct", "gain"]
FOLDS = 5
_BUCKETS = ((2000, 2048), (200, 512))  # (minimum rows, hash buckets of the prompt's words)
_WORD_PENALTIES = (100.0, 300.0, 1000.0, 3000.0)
_PENALTY = 30.0  # of a stage's standardized features
_WEAK_PENALTY = 0.1  # of a single score, so that perfect separation stays finite
_STEEPNESS = 4.0  # gain → score, so that a gain of 0 is a score of one half


@dataclass(frozen=True)
class PromptModel:
    """Each model's quality as predicted by the prompt's words and shapes, relative to the models' mean.

    Attributes:
        models: the models.
        held_out: out-of-fold predictions, shape (rows, models).
        weights: weights fitted on all rows, shape (1 + shapes + buckets, models).
        means: mean of each shape.
        scales: standard deviation of each shape.
    """

    models: tuple[str, ...]
    held_out: Matrix
    weights: Matrix
    means: Column
    scales: Column

    def difference(self, left: str, right: str) -> Column:
        """Return the held-out estimate of `left`'s quality minus `right`'s."""
        return np.asarray(
            self.held_out[:, self.models.index(left)] - self.held_out[:, self.models.index(right)]
        )

    def score(self, left: str, right: str, factor: float) -> Score:
        """Return factor · difference as a score."""
        weights = factor * (
            self.weights[:, self.models.index(left)] - self.weights[:, self.models.index(right)]
        )
        terms = [
            Term(feature=Feature(kind="prompt", name=name), weight=weight, mean=mean, scale=scale)
            for name, weight, mean, scale in zip(
                SHAPES, weights[1:].tolist(), self.means.tolist(), self.scales.tolist(), strict=False
            )
        ]
        words = Words(weights=tuple(weights[1 + len(SHAPES) :].round(6).tolist()))
        return Score(bias=float(weights[0]), terms=tuple(terms), words=(words,))


def folds_of(rows: int, seed: int) -> Rows:
    """Return a random fold number for each row; folds differ in size by at most one."""
    return np.asarray(np.random.default_rng(seed).permutation(rows) % FOLDS, dtype=np.intp)


def fit_prompt_model(features: Features, outcomes: Outcomes, folds: Rows) -> PromptModel | None:
    """Fit one ridge regression per model on hashed words and shapes of the prompts (Hoerl and Kennard 1970).

    The penalty with the smallest held-out squared error is chosen. Return None if a prompt is missing or rows
    are few.
    """
    size = next((buckets for min_rows, buckets in _BUCKETS if len(outcomes) >= min_rows), 0)
    if not size or any(prompt is None for prompt in outcomes.prompts):
        return None
    from scipy.sparse import csr_matrix, hstack

    rows = len(outcomes)
    shapes = features.matrix([Feature(kind="prompt", name=name) for name in SHAPES])
    means, scales = shapes.mean(axis=0), np.maximum(shapes.std(axis=0), MIN_SPREAD)
    row, bucket = features.words(None, size)
    words = csr_matrix((np.ones(len(row)), (row, bucket)), shape=(rows, size))
    dense = np.column_stack([np.ones(rows), (shapes - means) / scales])
    design = csr_matrix(hstack([csr_matrix(dense), words]))
    models = tuple(outcomes.models)
    quality = np.column_stack([outcomes.models[name].credit for name in models])
    held_out, weights = _ridge(design, quality - quality.mean(axis=1, keepdims=True), folds, dense.shape[1])
    return PromptModel(models, held_out, weights, means, scales)


def _ridge(design: csr_matrix, target: Matrix, folds: Rows, free: int) -> tuple[Matrix, Matrix]:
    """Return held-out predictions and all-row weights; the first `free` columns are hardly penalized."""
    from scipy.linalg import cho_factor, cho_solve

    parts = [design[folds == fold] for fold in range(FOLDS)]
    grams = [(part.T @ part).toarray() for part in parts]
    sides = [part.T @ target[folds == fold] for fold, part in enumerate(parts)]
    gram, side = sum(grams[1:], grams[0]), sum(sides[1:], sides[0])
    best: tuple[float, float, Matrix] | None = None
    for penalty in _WORD_PENALTIES:
        ridge = np.full(len(gram), penalty)
        ridge[:free] = 1e-3
        held_out = np.empty_like(target)
        for fold, part in enumerate(parts):
            factor = cho_factor(gram - grams[fold] + np.diag(ridge), overwrite_a=True, check_finite=False)
            held_out[folds == fold] = part @ cho_solve(factor, side - sides[fold])
        error = float(np.mean((held_out - target) ** 2))
        if best is None or error < best[0]:
            best = (error, penalty, held_out)
    if best is None:
        raise ValueError("no penalty to choose from")
    ridge = np.full(len(gram), best[1])
    ridge[:free] = 1e-3
    return best[2], cho_solve(cho_factor(gram + np.diag(ridge)), side)


@dataclass(frozen=True)
class StageModel:
    """One stage's score: its values on the fitting rows, and its formula.

    The values are out of fold, unless the score has a single feature. They are NaN where one of the models
    that the score looks at failed.
    """

    held_out: Column
    score: Score


def ensemble_of(outcomes: Outcomes, seed: int) -> Ensemble:
    """Return the scores of a table, the same object each time, because other goals need the same scores."""
    ensemble = outcomes.memo.get(("ensemble", seed))
    if not isinstance(ensemble, Ensemble):
        ensemble = outcomes.memo["ensemble", seed] = Ensemble(outcomes, seed)
    return ensemble


class Ensemble:
    """Fits stage scores on one table, each only once."""

    def __init__(self, outcomes: Outcomes, seed: int) -> None:
        self.outcomes = outcomes
        self.features = features_of(outcomes)
        self.folds = folds_of(len(outcomes), seed)
        self._stages: dict[tuple[tuple[str, ...], str, Target], StageModel | None] = {}

    @cached_property
    def prompt(self) -> PromptModel | None:
        """The model of the prompts alone, or None."""
        return fit_prompt_model(self.features, self.outcomes, self.folds)

    def gate(self, first: str, last: str) -> StageModel | None:
        """Return a score of the prompt: near 1 where `last` is expected to do better than `first`."""
        if self.prompt is None:
            return None
        held_out = _logistic(_STEEPNESS * self.prompt.difference(last, first))
        return StageModel(held_out, self.prompt.score(last, first, _STEEPNESS))

    def stage(self, asked: tuple[str, ...], last: str, target: Target) -> StageModel | None:
        """Return the score of the last of `asked`; None if there is nothing to judge it by.

        Target `correct` is P(the answer is right), by logistic regression. Target `gain` is how little asking
        `last` instead is expected to gain, by ridge regression of the difference in quality (a correct answer
        that the top model gets wrong counts twice).
        """
        key = (asked, last if target == "gain" else "", target)
        if key not in self._stages:
            self._stages[key] = self._fit(asked, last, target)
        return self._stages[key]

    def _fit(self, asked: tuple[str, ...], last: str, target: Target) -> StageModel | None:
        models = self.outcomes.models
        answered = np.flatnonzero(~np.any([models[name].failed for name in asked], axis=0))
        terms = [] if len(answered) < FOLDS else stage_terms(self.features, self.outcomes, asked, answered)
        if not terms:
            return None
        quality = models[asked[-1]].quality[answered]
        value = quality if target == "correct" else quality - models[last].credit[answered]
        columns = design(terms, self.features, answered)
        solve = _newton if target == "correct" else _least_squares
        weights, folds = solve(columns, value), self.folds[answered]
        held_out = np.full(len(self.outcomes), np.nan)
        for fold in range(FOLDS):
            # Use the common bias: a fold's own is lower the more of its left-out rows are right.
            inside = folds != fold
            part = np.array([weights[0], *solve(columns[inside], value[inside])[1:]])
            held_out[answered[~inside]] = columns[~inside] @ part
        if len({term.feature for term in terms}) == 1:  # with one feature, folds cost more than the optimism
            held_out[answered] = columns @ weights
        factor = 1.0 if target == "correct" else _STEEPNESS
        fitted = [
            term.model_copy(update={"weight": factor * weight})
            for term, weight in zip(terms, weights[1:].tolist(), strict=True)
        ]
        score = Score(bias=factor * float(weights[0]), terms=tuple(fitted))
        return StageModel(_logistic(factor * held_out), score)


def expected(score: Column, quality: Column) -> Column:
    """Return each row's quality as predicted by a logistic regression on one score; NaN without a score."""
    known = np.isfinite(score)
    predicted = np.full(len(score), np.nan)
    if not known.any():
        return predicted
    spread = max(float(score[known].std()), MIN_SPREAD)
    scaled = (score[known] - score[known].mean()) / spread
    design = np.column_stack([np.ones(len(scaled)), scaled])
    predicted[known] = _logistic(design @ _newton(design, quality[known], _WEAK_PENALTY))
    return predicted


def _newton(design: Matrix, right: Column, weight: float = _PENALTY) -> Column:
    """Fit a logistic regression with an L2 penalty on all weights but the bias, by Newton's method."""
    penalty = np.full(design.shape[1], weight)
    penalty[0] = 1e-3
    weights = np.zeros(design.shape[1])
    for _ in range(25):
        probability = _logistic(design @ weights)
        gradient = design.T @ (probability - right) + penalty * weights
        variance = probability * (1 - probability)
        hessian = (design * variance[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def _least_squares(design: Matrix, value: Column) -> Column:
    """Fit a ridge regression with the same penalty; gains vary like a logistic's second derivative."""
    penalty = np.full(design.shape[1], _PENALTY)
    penalty[0] = 1e-3
    return np.asarray(np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ value))


def _logistic(z: Column) -> Column:
    return np.asarray(0.5 * (1.0 + np.tanh(z / 2.0)))
