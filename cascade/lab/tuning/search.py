"""Thresholds of one chain: where they route rows, and which ones are worth trying, safest first.

Thresholds are chosen on the fitting rows only; other rows tell what they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat

import numpy as np
from numpy.typing import NDArray

from cascade.policy.apply import walk_stages
from cascade.policy.bounds import risk_upper
from cascade.policy.table import Column, Mask
from cascade.policy.thresholds import Thresholds, reaches

Matrix = NDArray[np.float64]
_MAX_SWEEPS = 8  # of coordinate ascent
_PRICES = 30  # points of a frontier
_STEPS = 6  # between the thresholds of neighbouring prices
_RISKS = 40  # points of a risk path
_MARGIN = 0.5  # standard deviations of the error count that a design allows for


@dataclass(frozen=True)
class ChainData:
    """The outcomes and scores of one chain of models on some rows. The last model is unchecked.

    Attributes:
        quality: quality of each answer, 0 to 1; shape (rows, models).
        cost: cost of each answer in USD; shape (rows, models).
        scores: score of each answer; shape (rows, models − 1); NaN where there is none.
        gate: how strongly each prompt calls for the last model, shape (rows,); None without a gate.
        abstention: the quality that no answer counts as; None if a run may not abstain.
        failed: where a call failed and there is no answer to accept; shape (rows, models); None: nowhere.
    """

    quality: Matrix
    cost: Matrix
    scores: Matrix
    gate: Column | None = None
    abstention: float | None = None
    failed: Mask | None = None

    @property
    def checked(self) -> int:
        """The number of stages that have a threshold."""
        return int(self.scores.shape[1])

    def accepts(self, thresholds: Thresholds, stage: int) -> Mask:
        """Return where a checked stage has an answer that it accepts."""
        accepted = thresholds.accepts(stage, self.scores[:, stage])
        return accepted if self.failed is None else accepted & ~self.failed[:, stage]

    def abstains(self, thresholds: Thresholds, stage: int) -> Mask:
        """Return where a checked stage gives up on what it does not accept."""
        return thresholds.abstains(stage, self.scores[:, stage])

    def skips(self, thresholds: Thresholds) -> Mask:
        """Return where the gate passes over all but the last model."""
        if self.gate is None:
            return np.zeros(len(self.quality), dtype=bool)
        return thresholds.skips(self.gate)


@dataclass(frozen=True)
class Routing:
    """Where thresholds send each row.

    Attributes:
        answered_by: index of the model that answers; −1 if none does. Shape (rows,), like the others.
        quality: quality of the answer; 0 where there is none.
        cost: USD spent on all models asked.
    """

    answered_by: NDArray[np.intp]
    quality: Column
    cost: Column


def route_rows(data: ChainData, thresholds: Thresholds) -> Routing:
    """Send every row through the chain and return who answers, how well, and at what cost."""
    rows, last = len(data.quality), data.checked
    start = np.where(data.skips(thresholds), last, 0)
    stages = [(data.accepts(thresholds, index), data.abstains(thresholds, index)) for index in range(last)]
    everywhere = np.ones(rows, dtype=bool)
    asked, answered_by = walk_stages(start, [*stages, (everywhere, ~everywhere)])
    quality, cost = np.zeros(rows), np.zeros(rows)
    for index, here in enumerate(asked):
        cost += np.where(here, data.cost[:, index], 0.0)
        quality += np.where(answered_by == index, data.quality[:, index], 0.0)
    return Routing(answered_by, quality, cost)


def best_thresholds(data: ChainData, price: float) -> Thresholds:
    """Maximize mean quality − price · cost over thresholds, by coordinate ascent (a local maximum).

    With a gate, the ascent starts twice: from escalating every row, and from accepting every row so that the
    gate can take out the ones that should skip ahead. The better end wins.

    Args:
        data: the rows.
        price: the quality that one US dollar is worth (the shadow price of the budget).
    """
    starts = [np.inf] if data.gate is None or not data.checked else [np.inf, -np.inf]
    ends = [_climb(data, price, (start,) * data.checked) for start in starts]
    return max(ends, key=lambda thresholds: _mean_value(data, thresholds, price))


def _climb(data: ChainData, price: float, accept: tuple[float, ...]) -> Thresholds:
    """Move each threshold in turn to its best value, until none moves."""
    abstain = () if data.abstention is None else (-np.inf,) * data.checked
    thresholds = Thresholds(accept, abstain)
    stages = list(reversed(range(data.checked)))
    for _ in range(_MAX_SWEEPS):
        before = thresholds
        if data.gate is not None and accept[:1] == (-np.inf,):
            thresholds = _gated(data, thresholds, price)
        for index in stages:
            thresholds = _improve(data, thresholds, index, price)
        if data.gate is not None:
            thresholds = _gated(data, thresholds, price)
        if thresholds == before:
            break
    return thresholds


def _gated(data: ChainData, thresholds: Thresholds, price: float) -> Thresholds:
    """Move the gate's threshold to its best value."""
    if data.gate is None:
        return thresholds
    stay = _onward(data, thresholds, 0, price)
    skip = data.quality[:, -1] - price * data.cost[:, -1]
    return replace(thresholds, skip_at=_cut(data.gate, skip - stay))


def _mean_value(data: ChainData, thresholds: Thresholds, price: float) -> float:
    skip = data.quality[:, -1] - price * data.cost[:, -1]
    return float(np.where(data.skips(thresholds), skip, _onward(data, thresholds, 0, price)).mean())


def frontier(data: ChainData) -> list[Thresholds]:
    """Return the best thresholds for rising prices of a dollar, from careful to cheap, with steps between."""
    typical = 1.0 / max(float(data.cost[:, -1].mean()), 1e-12)
    prices = [0.0, *np.geomspace(1e-3, 1e2, _PRICES) * typical]
    path = [best_thresholds(data, float(price)) for price in prices]
    ordered = [np.sort(column[np.isfinite(column)]) for column in data.scores.T]
    gate = np.sort(data.gate) if data.gate is not None else np.zeros(0)
    steps = [
        _between(left, right, step / _STEPS, ordered, gate)
        for left, right in pairwise(path)
        for step in range(_STEPS)
    ]
    return list(dict.fromkeys([*steps, path[-1]]))


def _between(
    left: Thresholds, right: Thresholds, share: float, ordered: Sequence[Column], gate: Column
) -> Thresholds:
    """Return thresholds part of the way from `left` to `right`, counted in rows that each lets through."""
    accept = tuple(map(_mixed, left.accept, right.accept, repeat(share), ordered))
    abstain = tuple(map(min, map(_mixed, left.abstain, right.abstain, repeat(share), ordered), accept))
    return Thresholds(accept, abstain, _mixed(left.skip_at, right.skip_at, share, gate))


def _mixed(left: float, right: float, share: float, ordered: Column) -> float:
    """Interpolate between two thresholds by rank in `ordered`, the sorted scores."""
    if left == right or share == 0.0:
        return left
    low, high = np.searchsorted(ordered, [left, right])
    rank = round(low + share * (high - low))
    return float(ordered[rank]) if rank < len(ordered) else np.inf


def risk_path(data: ChainData, alpha: float, delta: float, share: float) -> list[Thresholds]:
    """Return thresholds whose stages err more and more among what they accept, up to 1.5 · `alpha`.

    A stage takes part once `share` times as many rows as these should support its promise at `delta`, with
    the errors seen here or with half of those that `alpha` allows, whichever is less.

    Args:
        data: the fitting rows.
        alpha: the promised error rate among accepted answers.
        delta: the probability that the promise may fail.
        share: held-out rows per fitting row.
    """
    path: list[Thresholds] = []
    active = [False] * data.checked
    for target in np.linspace(0.0, 1.5 * alpha, _RISKS):
        here, accept = np.ones(len(data.quality), dtype=bool), [np.inf] * data.checked
        for index in range(data.checked):
            score, wrong = data.scores[here, index], 1.0 - data.quality[here, index]
            threshold = lowest_threshold(score, wrong, float(target))
            taken = reaches(score, threshold)
            rows, errors = share * float(taken.sum()), share * float(wrong[taken].sum())
            active[index] |= foreseen_bound(rows, min(errors, 0.5 * alpha * rows), delta) <= alpha
            if active[index]:
                accept[index] = threshold
                here &= ~reaches(data.scores[:, index], threshold)
        if any(active):
            path.append(Thresholds(tuple(accept)))
    return list(dict.fromkeys(path))


def foreseen_bound(rows: float, errors: float, delta: float) -> float:
    """Return the risk bound to expect from `rows` held-out rows, allowing for some bad luck."""
    whole = round(rows)
    return risk_upper(min(whole, math.ceil(errors + _MARGIN * math.sqrt(errors + 1.0))), whole, delta)


def _onward(data: ChainData, thresholds: Thresholds, start: int, price: float) -> Column:
    """Return each row's quality − price · cost when it enters the chain at stage `start`."""
    value = data.quality[:, -1] - price * data.cost[:, -1]
    for index in reversed(range(start, data.checked)):
        if data.abstention is not None:
            value = np.where(data.abstains(thresholds, index), data.abstention, value)
        value = np.where(data.accepts(thresholds, index), data.quality[:, index], value)
        value = value - price * data.cost[:, index]
    return value


def _improve(data: ChainData, thresholds: Thresholds, index: int, price: float) -> Thresholds:
    """Move one stage's thresholds to their best values, with all others fixed."""
    here = ~data.skips(thresholds)
    for earlier in range(index):
        here &= ~(data.accepts(thresholds, earlier) | data.abstains(thresholds, earlier))
    onward = _onward(data, thresholds, index + 1, price)[here]
    score = data.scores[here, index]
    refuse = onward
    abstain = list(thresholds.abstain)
    if data.abstention is not None:
        abstain[index] = -_cut(-score, data.abstention - onward)
        refuse = np.where(score < abstain[index], data.abstention, onward)
    accept = list(thresholds.accept)
    accept[index] = _cut(score, data.quality[here, index] - refuse)
    if abstain:
        abstain[index] = min(abstain[index], accept[index])
    return replace(thresholds, accept=tuple(accept), abstain=tuple(abstain))


def _cut(score: Column, gain: Column) -> float:
    """Return the threshold t that maximizes the sum of `gain` over rows with score ≥ t.

    It is inf if no row should be taken, −inf if every row should, else halfway between two scores.
    """
    known = np.isfinite(score)
    order = np.argsort(-score[known], kind="stable")
    ordered, total = score[known][order], np.cumsum(gain[known][order])
    ends = np.flatnonzero(np.diff(ordered, append=-np.inf))  # a cut needs two different scores
    if not len(ends) or total[ends].max() <= 0.0:
        return np.inf
    end = int(ends[int(np.argmax(total[ends]))])
    if end + 1 == len(ordered):
        return -np.inf if known.all() else float(ordered[-1])
    return float(ordered[end] + ordered[end + 1]) / 2


def lowest_threshold(score: Column, wrong: Column, risk: float) -> float:
    """Return the lowest threshold at which at most `risk` of the accepted rows are wrong; inf if none."""
    known = np.isfinite(score)
    score, wrong = score[known], wrong[known]
    order = np.argsort(-score, kind="stable")
    ordered, errors = score[order], np.cumsum(wrong[order])
    ends = np.flatnonzero(np.diff(ordered, append=-np.inf) != 0)
    allowed = ends[errors[ends] <= risk * (ends + 1) + 1e-9]
    return float(ordered[allowed[-1]]) if len(allowed) else np.inf
