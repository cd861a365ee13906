"""The threshold of a learned expert: certified on rows that fitted nothing, or chosen and called uncertified.

The promise is that of `cascade tune --max-risk`, for a chain of the expert and one unchecked model.
Thresholds are ordered from safe to bold on cross-fitted scores, and tested in that order on the held-out rows
with the exact bound of Clopper and Pearson (1934) until the first fails (Maurer, Hothorn and Lehmacher 1995).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cascade.lab.tuning.promise import Refusal, certificates
from cascade.lab.tuning.search import ChainData, lowest_threshold, route_rows
from cascade.policy.artifact import Certificate, Goal
from cascade.policy.bounds import fixed_sequence
from cascade.policy.thresholds import Thresholds

Column = NDArray[np.float64]
DECIMALS = 4  # of a threshold in a graph
NEVER = 1.0  # a threshold that no confidence reaches
CHAIN = ("expert", "opus")
_CUTS = 100  # thresholds that are looked at
_MAX_ROWS = 1_000_000  # that a refusal asks for
_LIKELY = 0.5  # chance of a certificate from which rows are held out for it


@dataclass(frozen=True)
class Graded:
    """Confidences of an expert's answers and whether each was right; one value a row."""

    confidence: Column
    correct: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.confidence)


@dataclass(frozen=True)
class Verdict:
    """From which confidence on the expert's answer counts, and what is promised of it.

    Attributes:
        accept: the threshold.
        certificate: the promise and the rows that support it; None: there is none.
        refusal: why there is no promise, and how many held-out rows would support one; None: there is one.
    """

    accept: float
    certificate: Certificate | None
    refusal: Refusal | None


class Prospect(NamedTuple):
    """What thresholds are expected to come to on held-out rows; one value a threshold, from safe to bold.

    Attributes:
        threshold: each threshold.
        coverage: the share of requests that it accepts.
        chance: the probability that the held-out rows support the promise at it.
    """

    threshold: Column
    coverage: Column
    chance: Column

    @property
    def worth(self) -> float:
        """The largest coverage times its chance; 0 if a certificate is less likely than a refusal."""
        likely = self.chance >= _LIKELY
        return float((self.coverage * self.chance)[likely].max(initial=0.0))


def prospect(fitting: Graded, rows: int, goal: Goal) -> Prospect:
    """Return what `rows` held-out rows should make of thresholds, judging by scores that do not include them.

    The error among the accepted is taken as half an error more than was seen (the mean under Jeffreys'
    prior), and errors on the held-out rows as binomial.
    """
    from scipy.stats import binom

    order = np.argsort(-fitting.confidence, kind="stable")
    ordered, errors = fitting.confidence[order], np.cumsum(~fitting.correct[order])
    ends = np.flatnonzero(np.diff(ordered, append=-np.inf) != 0)
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, _CUTS).astype(int))] if len(ends) else ends
    coverage = (ends + 1) / max(1, len(fitting))
    error = (errors[ends] + 0.5) / (ends + 2.0)
    accepted = np.round(rows * coverage)
    # Clopper and Pearson's bound is at most alpha if so few errors are so unlikely at alpha.
    allowed = binom.ppf(goal.delta, accepted, goal.value)
    allowed = np.where(binom.cdf(allowed, accepted, goal.value) > goal.delta, allowed - 1, allowed)
    return Prospect(ordered[ends], coverage, np.asarray(binom.cdf(allowed, accepted, error)))


def judge(fitting: Graded, held_out: Graded, goal: Goal) -> Verdict:
    """Return the boldest certified threshold, or an uncertified one with the reason.

    Args:
        fitting: cross-fitted scores, which the thresholds are chosen by.
        held_out: scores of rows that fitted nothing; may be empty.
        goal: of kind max_risk.
    """
    if len(held_out) and len(fitting):
        likely = prospect(fitting, len(held_out), goal)
        start = int(np.argmax(likely.chance))  # anything before is neither more certain nor bolder
        path = list(dict.fromkeys(_up(threshold) for threshold in likely.threshold[start:].tolist()))
        tested = _chain_data(held_out)
        passed = fixed_sequence(_certificate(tested, each, goal) is not None for each in path)
        if passed:
            return Verdict(path[passed - 1], _certificate(tested, path[passed - 1], goal), None)
    return Verdict(uncertified_threshold(fitting, goal), None, _refusal(fitting, held_out, goal))


def rows_for(fitting: Graded, goal: Goal) -> int | None:
    """Return how many held-out rows make a certificate more likely than a refusal; None if no number does."""
    if not prospect(fitting, _MAX_ROWS, goal).worth:
        return None
    low, high = 0, _MAX_ROWS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if prospect(fitting, middle, goal).worth else (middle, high)
    return high


def uncertified_threshold(fitting: Graded, goal: Goal) -> float:
    """Return the lowest threshold that keeps the risk on cross-fitted scores; `NEVER` if none does."""
    wrong = (~fitting.correct).astype(float)
    threshold = lowest_threshold(fitting.confidence, wrong, goal.value)
    return NEVER if math.isinf(threshold) else _up(threshold)


def _refusal(fitting: Graded, held_out: Graded, goal: Goal) -> Refusal:
    """Say why nothing is promised and how many held-out rows like these would support it."""
    probability = f"with probability {1 - (goal.delta or 0.0):g}"
    promise = f"at most {100 * goal.value:g}% wrong among what the expert answers, {probability}"
    seen = Graded(
        np.concatenate([fitting.confidence, held_out.confidence]),
        np.concatenate([fitting.correct, held_out.correct]),
    )
    needed = rows_for(seen, goal)
    if needed is None:
        return Refusal(
            f"no threshold errs little enough for {promise}: better labels or a larger expert are needed, "
            "not more rows",
            None,
        )
    given = (
        f"{len(held_out)} held-out rows do not support"
        if len(held_out)
        else f"{len(fitting)} rows are too few to hold any out for"
    )
    return Refusal(f"{given} {promise}", max(needed, 2 * len(held_out)))


def _certificate(data: ChainData, accept: float, goal: Goal) -> Certificate | None:
    """Return the certificate of the expert at a threshold, if the rows support the promise."""
    answered_by = route_rows(data, Thresholds((accept,))).answered_by
    made = certificates(CHAIN, answered_by, data.quality, goal, 1, bounds=True)
    return made[0] if made and made[0].bound <= made[0].alpha else None


def _chain_data(graded: Graded) -> ChainData:
    """Return the rows as a chain of the expert and a model that costs something and is always right."""
    rows = len(graded)
    right = graded.correct.astype(float)
    return ChainData(
        quality=np.column_stack([right, np.ones(rows)]),
        cost=np.column_stack([np.zeros(rows), np.ones(rows)]),
        scores=graded.confidence[:, None],
    )


def _up(threshold: float) -> float:
    """Round up, so that what is written in a graph accepts no more than what was looked at."""
    if math.isinf(threshold):
        return threshold
    scale = 10**DECIMALS
    return float(min(NEVER, math.ceil(threshold * scale - 1e-9) / scale))
