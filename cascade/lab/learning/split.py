"""Which rows train and which are held out for the promise.

A third of the rows is put aside first. A quick classifier that has seen only the others says how many of them
the promise needs; the rest goes back to training, so no more is held out than the promise needs. If even the
third would not do, none is held out: every row trains, and the promise is refused. What was put aside has
decided nothing by then, so a bound on it stays exact.

Where it is known when rows came, the latest are put aside, because an expert answers requests of later days.
Texts that were picked for a person to label stand for no others: they only train.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.lab.learning.certify import Graded, prospect
from cascade.policy.artifact import Goal
from cascade.policy.bounds import rows_needed

Indices = NDArray[np.intp]
ASIDE = 1 / 3  # of the rows at most may be held out
_ENOUGH = 0.9  # of what all rows put aside would certify is worth no more rows
_STEPS = 12  # sizes that are tried
_MIN_PILOT = 30  # rows for the pilot to say anything
_FOLDS = 5
_SHRINKAGE = 0.3  # of the pilot's covariance towards a round one
_FLOOR = 1e-6  # of a variance, where all rows of a label are alike
_PILOT_ROWS = 20_000  # more tell no more


@dataclass(frozen=True)
class Split:
    """Indices of the rows that train and of those that are held out, and why as many as that."""

    train: Indices
    held_out: Indices
    reason: str


def put_aside(
    labels: Sequence[str],
    groups: Indices,
    seed: int,
    *,
    share: float = ASIDE,
    times: Sequence[str] | None = None,
    asked: Sequence[bool] | None = None,
) -> tuple[Indices, Indices]:
    """Return (kept, aside): whole groups, a share of each label's rows, in the order in which they count.

    A label keeps at least half of its rows. Without `times` the seed draws the order, and rounding is random,
    so that no label is favoured. With them the latest groups are put aside, by their first rows, the latest
    first, until they are a third of all rows whatever the share. Groups with an `asked` row are kept.
    """
    random = np.random.default_rng(seed)
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups.tolist()):
        members[group].append(index)
    families = [rows for rows in members.values() if not (asked and any(asked[index] for index in rows))]
    if times is not None:
        return _latest(families, labels, times)
    totals = sorted(Counter(labels).items())
    wanted = {label: int(share * count + random.random()) for label, count in totals}
    spare = {label: count // 2 for label, count in totals}
    order = [families[each] for each in random.permutation(len(families))]
    aside: list[int] = []
    for group_rows in order:
        counts = Counter(labels[index] for index in group_rows)
        if all(2 * wanted[label] >= count <= spare[label] for label, count in counts.items()):
            aside += group_rows
            for label, count in counts.items():
                wanted[label] -= count
                spare[label] -= count
    kept = np.setdiff1d(np.arange(len(labels)), aside)
    return kept.astype(np.intp), np.array(aside, dtype=np.intp)


def _latest(
    families: Sequence[list[int]], labels: Sequence[str], times: Sequence[str]
) -> tuple[Indices, Indices]:
    """Return (kept, aside) by time."""
    spare = {label: count // 2 for label, count in Counter(labels).items()}
    ordered = sorted(families, key=lambda rows: (min(times[index] for index in rows), rows), reverse=True)
    aside: list[int] = []
    for rows in ordered:
        if len(aside) + len(rows) > ASIDE * len(labels):
            break
        counts = Counter(labels[index] for index in rows)
        if all(count <= spare[label] for label, count in counts.items()):
            aside += rows
            for label, count in counts.items():
                spare[label] -= count
    kept = np.setdiff1d(np.arange(len(labels)), aside)
    return kept.astype(np.intp), np.array(aside, dtype=np.intp)


def split_rows(
    vectors: NDArray[np.float32],
    labels: Sequence[str],
    groups: Indices,
    goal: Goal,
    seed: int,
    *,
    times: Sequence[str] | None = None,
    asked: Sequence[bool] | None = None,
) -> Split:
    """Return which rows train and which are held out for `goal`.

    Args:
        vectors: unit vectors of the texts, shape (rows, dimensions).
        labels: each row's label.
        groups: a number for each row's group, which stays on one side.
        goal: of kind max_risk.
        seed: seed of the split.
        times: when each row came, ISO 8601; then the latest rows are held out.
        asked: whether each text was picked for a person to label; such rows are never held out.
    """
    kept, aside = put_aside(labels, groups, seed, times=times, asked=asked)
    everything = np.arange(len(labels), dtype=np.intp)
    nothing = np.zeros(0, dtype=np.intp)
    if len(kept) < _MIN_PILOT or not len(aside):
        return Split(everything, nothing, "there are too few rows to spare any")
    first = _first_of_each_group(aside, groups)
    reason = f"a third of the rows ({len(first)}) would not support the promise, so all of them train"
    if (rows_needed(goal.value, goal.delta or 0.0) or len(labels)) > len(first):
        return Split(everything, nothing, reason)  # not even without a single error
    sample = kept[:: max(1, len(kept) // _PILOT_ROWS)]
    pilot = pilot_scores(vectors[sample], [labels[index] for index in sample], groups[sample], seed)
    most = prospect(pilot, len(first), goal).worth
    if not most:
        return Split(everything, nothing, reason)
    sizes = np.unique(np.geomspace(1, len(first), _STEPS).round().astype(int)).tolist()
    size = next(each for each in sizes if prospect(pilot, each, goal).worth >= _ENOUGH * most)
    chosen = set(groups[first[:size]].tolist())
    held = np.array([index for index in aside if groups[index] in chosen], dtype=np.intp)
    train = np.setdiff1d(everything, held).astype(np.intp)
    what = f"about {size} rows" if times is None else f"about {size} rows, the latest ones"
    reason = f"the promise needs {what}, judging by a quick classifier on the others"
    return Split(train, np.sort(held), reason)


def counted(held_out: Indices, groups: Indices) -> Indices:
    """Return the first row of each group: near-duplicates are not independent, so each family counts once."""
    return _first_of_each_group(held_out, groups)


def _first_of_each_group(rows: Indices, groups: Indices) -> Indices:
    seen: dict[int, int] = {}
    for index in rows.tolist():
        seen.setdefault(int(groups[index]), index)
    return np.array(list(seen.values()), dtype=np.intp)


def pilot_scores(vectors: NDArray[np.float32], labels: Sequence[str], groups: Indices, seed: int) -> Graded:
    """Return cross-fitted margins of a linear discriminant analysis of the vectors, which takes a moment.

    They only have to order the rows as the expert's confidence will, roughly.
    """
    names, target = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
    distinct, group = np.unique(groups, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(distinct)) % _FOLDS)[group]
    margin, correct = np.zeros(len(labels)), np.zeros(len(labels), dtype=bool)
    for part in range(_FOLDS):
        inside, outside = fold != part, fold == part
        scores = _discriminant(vectors[inside], target[inside], len(names), vectors[outside])
        top = np.sort(scores, axis=1)[:, -2:]
        margin[outside] = top[:, 1] - top[:, 0]
        correct[outside] = scores.argmax(axis=1) == target[outside]
    return Graded(margin, correct)


def _discriminant(
    known: NDArray[np.float32], target: Indices, labels: int, new: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return each label's score of new vectors by linear discriminant analysis (Fisher 1936).

    The covariance within labels is shrunk towards a round one. A label without a row has the mean of all.
    """
    rows = np.bincount(target, minlength=labels)
    sums = np.zeros((labels, known.shape[1]))
    np.add.at(sums, target, known)
    means = np.where(rows[:, None] > 0, sums / np.maximum(rows, 1)[:, None], known.mean(axis=0))
    within = known - means[target]
    covariance = within.T @ within / len(known)
    round_one = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    covariance = (1.0 - _SHRINKAGE) * covariance + _SHRINKAGE * round_one
    directions = np.linalg.solve(covariance + _FLOOR * np.eye(len(covariance)), means.T)
    chances = np.log((rows + 0.5) / (len(known) + 0.5 * labels))
    return np.asarray(new @ directions - 0.5 * (means.T * directions).sum(axis=0) + chances)
