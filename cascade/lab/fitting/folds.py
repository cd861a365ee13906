"""Folds for cross-fitting: groups stay whole, and each fold has its share of each label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


def make_folds(target: Indices, groups: Indices, folds: int, seed: int) -> Indices:
    """Return each row's fold. Each group goes whole to the fold that has the fewest rows of its labels.

    Args:
        target: index of each row's label.
        groups: number of each row's group.
        folds: how many folds; fewer are used if there are fewer groups.
        seed: of the order in which groups take their turns.
    """
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    folds = min(folds, count)
    order = np.argsort(member, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(member))[:-1])
    held = np.zeros((folds, int(target.max()) + 1))
    total = np.zeros(folds)
    fold = np.empty(len(target), np.intp)
    random = np.random.default_rng(seed)
    turns = random.permutation(count)
    # Large groups first: the small ones then even out what they leave.
    turns = turns[np.argsort([-len(rows_of[group]) for group in turns], kind="stable")]
    for group in turns.tolist():
        rows = rows_of[group]
        labels, each = np.unique(target[rows], return_counts=True)
        crowd = held[:, labels] @ each
        place = int(np.lexsort((random.random(folds), total, crowd))[0])
        fold[rows] = place
        held[place, labels] += each
        total[place] += len(rows)
    return fold
