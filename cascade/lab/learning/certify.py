"""The threshold of a learned expert: certified on rows that fitted nothing, or chosen and called uncertified.

The promise is that of `cascade tune --max-risk`, for a chain of the expert and one unchecked model.
Thresholds are ordered from safe to bold on cross-fitted scores, and tested in that order on the held-out rows
with the exact bound of Clopper and Pearson (1934) until the first fails (Maurer, Hothorn and Lehmacher 1995).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.lab.tuning.design import threshold_path
from cascade.lab.tuning.promise import Refusal, certificates, risk_rows
from cascade.lab.tuning.search import ChainData, foreseen_bound, lowest_threshold, route_rows
from cascade.policy.artifact import Certificate, Goal
from cascade.policy.bounds import fixed_sequence
from cascade.policy.thresholds import Thresholds

Column = NDArray[np.float64]
DECIMALS = 4  # of a threshold in a graph
NEVER = 1.0  # a threshold that no confidence reaches
CHAIN = ("expert", "opus")


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


def foreseen_coverage(pilot: Graded, rows: int, goal: Goal) -> float:
    """Return the largest share of requests that `rows` held-out rows should certify, judging by `pilot`."""
    if not len(pilot):
        return 0.0
    order = np.argsort(-pilot.confidence, kind="stable")
    errors = np.cumsum(~pilot.correct[order])
    ends = np.flatnonzero(np.diff(pilot.confidence[order], append=-np.inf) != 0)
    scale = rows / len(pilot)
    best = 0.0
    for end in ends[np.unique(np.linspace(0, len(ends) - 1, 100).astype(int))]:
        bound = foreseen_bound(scale * (end + 1), scale * float(errors[end]), goal.delta or 0.0)
        if bound <= goal.value:
            best = (end + 1) / len(pilot)
    return float(best)


def judge(fitting: Graded, held_out: Graded, goal: Goal) -> Verdict:
    """Return the boldest certified threshold, or an uncertified one with the reason.

    Args:
        fitting: cross-fitted scores, which the thresholds are chosen by.
        held_out: scores of rows that fitted nothing; may be empty.
        goal: of kind max_risk.
    """
    if len(held_out):
        data = _chain_data(fitting)
        path, _, _ = threshold_path(data, goal, len(held_out) / len(fitting))
        rounded = list(dict.fromkeys(_rounded(each) for each in path))
        tested = _chain_data(held_out)
        passed = fixed_sequence(_certificate(tested, each, goal) is not None for each in rounded)
        if passed:
            chosen = rounded[passed - 1]
            return Verdict(chosen.accept[0], _certificate(tested, chosen, goal), None)
    return Verdict(uncertified_threshold(fitting, goal), None, _refusal(fitting, held_out, goal))


def uncertified_threshold(fitting: Graded, goal: Goal) -> float:
    """Return the lowest threshold that keeps the risk on cross-fitted scores; `NEVER` if none does."""
    wrong = (~fitting.correct).astype(float)
    threshold = lowest_threshold(fitting.confidence, wrong, goal.value)
    return NEVER if math.isinf(threshold) else _up(threshold)


def _refusal(fitting: Graded, held_out: Graded, goal: Goal) -> Refusal:
    """Say why nothing is promised and how many held-out rows like these would support it."""
    probability = f"with probability {1 - (goal.delta or 0.0):g}"
    promise = f"at most {goal.value:.3g} wrong among what the expert answers, {probability}"
    needed = risk_rows(_chain_data(fitting), goal)
    if needed is None:
        return Refusal(
            f"no threshold errs little enough for {promise}: better labels or a larger expert are needed, "
            "not rows",
            None,
        )
    given = f"{len(held_out)} held-out rows do not support" if len(held_out) else "no row was held out for"
    return Refusal(f"{given} {promise}", max(needed, len(held_out) + 1))


def _certificate(data: ChainData, thresholds: Thresholds, goal: Goal) -> Certificate | None:
    """Return the certificate of the expert at a threshold, if the rows support the promise."""
    answered_by = route_rows(data, thresholds).answered_by
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


def _rounded(thresholds: Thresholds) -> Thresholds:
    return Thresholds((_up(thresholds.accept[0]),))


def _up(threshold: float) -> float:
    """Round up, so that what is written in a graph accepts no more than what was looked at."""
    if math.isinf(threshold):
        return threshold
    scale = 10**DECIMALS
    return float(min(NEVER, math.ceil(threshold * scale - 1e-9) / scale))
