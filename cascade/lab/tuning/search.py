"""Thresholds of one chain: what a setting does on rows, and the settings worth trying, safest first.

A setting is found on fitting rows only; what it is worth is for other rows to say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat

import numpy as np
from numpy.typing import NDArray

from cascade.policy.bounds import risk_upper
from cascade.policy.table import Column

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
_SWEEPS = 8
_PRICES = 30
_PARTS = 6  # steps between the settings of neighbouring prices
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
            score = problem.scores[:, index]
            given_up = here & np.isfinite(score) & (score < setting.abstain[index])
            stage[given_up], quality[given_up] = -1, 0.0
            here &= ~given_up
    asked = here | skipped
    cost[asked] += problem.cost[asked, last]
    return Walk(stage, quality, cost)


def best(problem: Problem, price: float) -> Setting:
    """Return thresholds that make mean quality − price · cost large.

    With a gate there are two ways to begin: every row is escalated, or every row is accepted, for the gate
    to take out what it should not have; the better end is taken.

    Args:
        problem: the rows.
        price: what a US dollar is worth in quality (the shadow price of the budget).
    """
    starts = [np.inf] if problem.gate is None or not problem.checked else [np.inf, -np.inf]
    ends = [_climb(problem, price, (start,) * problem.checked) for start in starts]
    return max(ends, key=lambda setting: _worth(problem, setting, price))


def _climb(problem: Problem, price: float, accept: tuple[float, ...]) -> Setting:
    """Move each threshold in turn to where it is best, until none moves."""
    abstain = () if problem.abstention is None else (-np.inf,) * problem.checked
    setting = Setting(accept, abstain)
    stages = list(reversed(range(problem.checked)))
    for _ in range(_SWEEPS):
        before = setting
        if problem.gate is not None and accept[:1] == (-np.inf,):
            setting = _gated(problem, setting, price)
        for index in stages:
            setting = _improve(problem, setting, index, price)
        if problem.gate is not None:
            setting = _gated(problem, setting, price)
        if setting == before:
            break
    return setting


def _gated(problem: Problem, setting: Setting, price: float) -> Setting:
    """Move the gate's threshold to where it is best."""
    if problem.gate is None:
        return setting
    stay = _onward(problem, setting, 0, price)
    skip = problem.quality[:, -1] - price * problem.cost[:, -1]
    return replace(setting, skip_at=_cut(problem.gate, skip - stay))


def _worth(problem: Problem, setting: Setting, price: float) -> float:
    skip = problem.quality[:, -1] - price * problem.cost[:, -1]
    return float(np.where(_skipped(problem, setting), skip, _onward(problem, setting, 0, price)).mean())


def frontier(problem: Problem) -> list[Setting]:
    """Return the best settings for rising prices of a dollar: from careful to cheap."""
    typical = 1.0 / max(float(problem.cost[:, -1].mean()), 1e-12)
    prices = [0.0, *np.geomspace(1e-3, 1e2, _PRICES) * typical]
    path = [best(problem, float(price)) for price in prices]
    ordered = [np.sort(column[np.isfinite(column)]) for column in problem.scores.T]
    gate = np.sort(problem.gate) if problem.gate is not None else np.zeros(0)
    steps = [
        _between(left, right, part / _PARTS, ordered, gate)
        for left, right in pairwise(path)
        for part in range(_PARTS)
    ]
    return list(dict.fromkeys([*steps, path[-1]]))


def _between(left: Setting, right: Setting, share: float, ordered: Sequence[Column], gate: Column) -> Setting:
    """Return a setting part of the way, counted in rows that each threshold lets through."""
    accept = tuple(map(_mixed, left.accept, right.accept, repeat(share), ordered))
    abstain = tuple(map(min, map(_mixed, left.abstain, right.abstain, repeat(share), ordered), accept))
    return Setting(accept, abstain, _mixed(left.skip_at, right.skip_at, share, gate))


def _mixed(left: float, right: float, share: float, ordered: Column) -> float:
    """Return the threshold that lets through a mixture of what two of them do; `ordered` are the scores."""
    if left == right or share == 0.0:
        return left
    low, high = np.searchsorted(ordered, [left, right])
    place = round(low + share * (high - low))
    return float(ordered[place]) if place < len(ordered) else np.inf


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
            low = np.isfinite(score) & (score < setting.abstain[index])
            value = np.where(low, problem.abstention, value)
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
    known = np.isfinite(score)
    score, wrong = score[known], wrong[known]
    order = np.argsort(-score, kind="stable")
    ordered, errors = score[order], np.cumsum(wrong[order])
    ends = np.flatnonzero(np.diff(ordered, append=-np.inf) != 0)
    good = ends[errors[ends] <= risk * (ends + 1) + 1e-9]
    return float(ordered[good[-1]]) if len(good) else np.inf
