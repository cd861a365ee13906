"""Thresholds of one chain: what a setting does on rows, and the settings worth trying, safest first.

A setting is found on fitting rows only; what it is worth is for other rows to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cascade.policy.certify import risk_upper
from cascade.policy.table import Column

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
_SWEEPS = 8
_PRICES = 40
_PARTS = 4  # steps between the settings of neighbouring prices
_RISKS = 40
_CARE = 0.5  # standard deviations of the number of errors that a design allows for


@dataclass(frozen=True)
class Problem:
    """One chain on some rows; the last model is not checked.

    Attributes:
        quality, cost: rows × models.
        scores: rows × (models − 1); a stage without a score holds −inf.
        gate: how much each prompt needs the last model at once; None without a gate.
        abstention: what no answer is worth, in quality; None where a run may not abstain.
    """

    quality: Matrix
    cost: Matrix
    scores: Matrix
    gate: Column | None = None
    abstention: float | None = None

    @property
    def checked(self) -> int:
        """How many stages have a threshold."""
        return int(self.scores.shape[1])


@dataclass(frozen=True)
class Setting:
    """Thresholds: accept at or above, abstain below, and ask the last model at once at or above `skip_at`."""

    accept: tuple[float, ...]
    abstain: tuple[float, ...] = ()
    skip_at: float = np.inf


@dataclass(frozen=True)
class Walk:
    """What a setting does: `stage` is who answered (−1 nobody), `quality` 0 where nobody did."""

    stage: NDArray[np.intp]
    quality: Column
    cost: Column


def walk(problem: Problem, setting: Setting) -> Walk:
    """Send every row through the chain."""
    rows, last = len(problem.quality), problem.checked
    stage, quality, cost = np.full(rows, last), problem.quality[:, last].copy(), np.zeros(rows)
    skipped = _skipped(problem, setting)
    here = ~skipped
    for index in range(last):
        cost[here] += problem.cost[here, index]
        accepted = here & (problem.scores[:, index] >= setting.accept[index])
        stage[accepted], quality[accepted] = index, problem.quality[accepted, index]
        here &= ~accepted
        if setting.abstain:
            given_up = here & (problem.scores[:, index] < setting.abstain[index])
            stage[given_up], quality[given_up] = -1, 0.0
            here &= ~given_up
    asked = here | skipped
    cost[asked] += problem.cost[asked, last]
    return Walk(stage, quality, cost)


def best(problem: Problem, price: float) -> Setting:
    """Return thresholds that make mean quality − price · cost large: each in turn, until none moves.

    Args:
        problem: the rows.
        price: what a US dollar is worth in quality (the shadow price of the budget).
    """
    setting = Setting((np.inf,) * problem.checked)
    if problem.abstention is not None:
        setting = replace(setting, abstain=(-np.inf,) * problem.checked)
    for _ in range(_SWEEPS):
        before = setting
        for index in reversed(range(problem.checked)):
            setting = _improve(problem, setting, index, price)
        if problem.gate is not None:
            stay = _onward(problem, replace(setting, skip_at=np.inf), 0, price)
            skip = problem.quality[:, -1] - price * problem.cost[:, -1]
            setting = replace(setting, skip_at=_cut(problem.gate, skip - stay))
        if setting == before:
            break
    return setting


def frontier(problem: Problem) -> list[Setting]:
    """Return the best settings for rising prices of a dollar: from careful to cheap."""
    typical = 1.0 / max(float(problem.cost[:, -1].mean()), 1e-12)
    prices = [0.0, *np.geomspace(1e-3, 1e2, _PRICES) * typical]
    path = [best(problem, float(price)) for price in prices]
    steps = [_between(left, right, part / _PARTS) for left, right in pairwise(path) for part in range(_PARTS)]
    return list(dict.fromkeys([*steps, path[-1]]))


def _between(left: Setting, right: Setting, share: float) -> Setting:
    """Return a setting part of the way; a threshold that is not finite on both sides stays the left one's."""

    def mixed(a: float, b: float) -> float:
        return a + share * (b - a) if math.isfinite(a) and math.isfinite(b) else a

    accept = tuple(map(mixed, left.accept, right.accept))
    abstain = tuple(map(min, map(mixed, left.abstain, right.abstain), accept)) if left.abstain else ()
    return Setting(accept, abstain, mixed(left.skip_at, right.skip_at))


def risk_path(problem: Problem, alpha: float, delta: float, share: float) -> list[Setting]:
    """Return settings whose stages err ever more among what they accept, up to one and a half times `alpha`.

    A stage joins in once `share` times as many rows as these should support its promise at `delta`, with the
    errors seen here or with half of those that `alpha` allows.
    """
    path: list[Setting] = []
    active = [False] * problem.checked
    for target in np.linspace(0.0, 1.5 * alpha, _RISKS):
        here, accept = np.ones(len(problem.quality), dtype=bool), [np.inf] * problem.checked
        for index in range(problem.checked):
            score, wrong = problem.scores[here, index], 1.0 - problem.quality[here, index]
            at = boldest(score, wrong, float(target))
            taken = score >= at
            rows, errors = share * float(taken.sum()), share * float(wrong[taken].sum())
            active[index] |= foreseen(rows, min(errors, 0.5 * alpha * rows), delta) <= alpha
            if active[index]:
                accept[index] = at
                here &= problem.scores[:, index] < at
        if any(active):
            path.append(Setting(tuple(accept)))
    return list(dict.fromkeys(path))


def foreseen(rows: float, errors: float, delta: float) -> float:
    """Return the risk bound that so many held-out rows should give even with some bad luck."""
    whole = round(rows)
    return risk_upper(min(whole, math.ceil(errors + _CARE * math.sqrt(errors + 1.0))), whole, delta)


def _skipped(problem: Problem, setting: Setting) -> Mask:
    if problem.gate is None:
        return np.zeros(len(problem.quality), dtype=bool)
    return np.asarray(problem.gate >= setting.skip_at)


def _onward(problem: Problem, setting: Setting, start: int, price: float) -> Column:
    """Return quality − price · cost of each row from stage `start` on."""
    value = problem.quality[:, -1] - price * problem.cost[:, -1]
    for index in reversed(range(start, problem.checked)):
        score = problem.scores[:, index]
        if setting.abstain and problem.abstention is not None:
            value = np.where(score < setting.abstain[index], problem.abstention, value)
        value = np.where(score >= setting.accept[index], problem.quality[:, index], value)
        value = value - price * problem.cost[:, index]
    return value


def _improve(problem: Problem, setting: Setting, index: int, price: float) -> Setting:
    """Move one stage's thresholds to where they are best, all others fixed."""
    here = ~_skipped(problem, setting)
    for earlier in range(index):
        here &= problem.scores[:, earlier] < setting.accept[earlier]
        if setting.abstain:
            here &= problem.scores[:, earlier] >= setting.abstain[earlier]
    onward = _onward(problem, setting, index + 1, price)[here]
    score = problem.scores[here, index]
    refuse = onward
    abstain = list(setting.abstain)
    if problem.abstention is not None:
        abstain[index] = -_cut(-score, problem.abstention - onward)
        refuse = np.where(score < abstain[index], problem.abstention, onward)
    accept = list(setting.accept)
    accept[index] = _cut(score, problem.quality[here, index] - refuse)
    if abstain:
        abstain[index] = min(abstain[index], accept[index])
    return replace(setting, accept=tuple(accept), abstain=tuple(abstain))


def _cut(score: Column, gain: Column) -> float:
    """Return the threshold t that makes the sum of `gain` over rows with score ≥ t largest.

    inf if no row should be taken, −inf if every row should; else halfway between two scores.
    """
    known = np.isfinite(score)
    order = np.argsort(-score[known], kind="stable")
    ordered, total = score[known][order], np.cumsum(gain[known][order])
    ends = np.flatnonzero(np.diff(ordered, append=-np.inf))  # only between different scores can one cut
    if not len(ends) or total[ends].max() <= 0.0:
        return np.inf
    end = int(ends[int(np.argmax(total[ends]))])
    if end + 1 == len(ordered):
        return -np.inf if known.all() else float(ordered[-1])
    return float(ordered[end] + ordered[end + 1]) / 2


def boldest(score: Column, wrong: Column, risk: float) -> float:
    """Return the lowest threshold above which at most `risk` of the rows are wrong; inf if there is none."""
    order = np.argsort(-score, kind="stable")
    ordered, errors = score[order], np.cumsum(wrong[order])
    ends = np.flatnonzero(np.diff(ordered, append=-np.inf) != 0)
    ends = ends[np.isfinite(ordered[ends])]
    good = ends[errors[ends] <= risk * (ends + 1) + 1e-9]
    return float(ordered[good[-1]]) if len(good) else np.inf
