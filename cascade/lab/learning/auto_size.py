"""The size `auto`: the smallest expert that is about as good as the best, on rows that none has learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cascade.lab.learning import head_size, tiny_size, tuned_size
from cascade.lab.learning.sizes import Material, Rows, Trained

MARGIN = 0.005  # of accuracy that a smaller expert may lack
_TIMES = 4.0  # what the next size takes, as a multiple of embedding the rows; below that it is not begun
ORDER = (
    "tiny",
    "head",
    "tuned",
)  # by size; head and tuned are as large, and head is made in a tenth of the time


def train(rows: Rows, material: Material) -> Trained:
    """Make experts of every size that the time allows, and return the smallest that is good enough."""
    session = material.session
    made: dict[str, Trained] = {"head": head_size.train(rows, material)}
    if session.seconds_left() > _TIMES * _embedding_seconds(rows, material):
        tuned = tuned_size.fine_tune(rows, material, share_of_time=0.5)
        made["tuned"] = tuned_size.finish(rows, material, tuned)
        if session.seconds_left() > _TIMES * _embedding_seconds(rows, material):
            made["tiny"] = tiny_size.distil(rows, material, tuned)
    accuracies = _accuracies(rows, made)
    chosen = choose(accuracies)
    session.note(why(accuracies, chosen))
    made[chosen].notes = dict(made[chosen].notes) | {"sizes": accuracies, "why": why(accuracies, chosen)}
    return made[chosen]


def choose(accuracies: dict[str, float]) -> str:
    """Return the smallest size whose accuracy is at most `MARGIN` below the best."""
    best = max(accuracies.values())
    return next(size for size in ORDER if size in accuracies and accuracies[size] >= best - MARGIN - 1e-9)


def why(accuracies: dict[str, float], chosen: str) -> str:
    """Say which size was chosen and what the others reach."""
    reached = ", ".join(f"{size} {100 * accuracies[size]:.1f} %" for size in ORDER if size in accuracies)
    left_out = [size for size in ORDER if size not in accuracies]
    text = f"size {chosen}: the smallest within {100 * MARGIN:g} points of the best on held rows ({reached})"
    return text + (f"; no time for {' and '.join(left_out)}: give more --minutes" if left_out else "")


def _accuracies(rows: Rows, made: dict[str, Trained]) -> dict[str, float]:
    """Return each size's accuracy on the rows that all of them can be judged on."""
    shared = sorted(set.intersection(*(set(expert.rows.tolist()) for expert in made.values())))
    return {size: _accuracy(rows, expert, shared) for size, expert in made.items()}


def _accuracy(rows: Rows, expert: Trained, shared: Sequence[int]) -> float:
    place = {row: index for index, row in enumerate(expert.rows.tolist())}
    right = [expert.labels[expert.scores.predicted[place[row]]] == rows.labels[row] for row in shared]
    return float(np.mean(right))


def _embedding_seconds(rows: Rows, material: Material) -> float:
    speed = material.vectors.texts_per_second
    return len(rows.texts) / speed if speed else 0.0
