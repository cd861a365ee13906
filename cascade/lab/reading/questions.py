"""Which texts a person should label: the most valuable ones, by uncertainty times diversity.

Candidates are texts with several labels, rows whose given label the expert contradicts (somebody has erred),
and texts without a label that the expert is least sure of. They are picked greedily: each time the one of the
highest value times its distance to the nearest one that is picked already, as in k-centre active learning
(Sener and Savarese 2018), weighted by uncertainty.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cascade.lab.reading.near_duplicates import normal_form
from cascade.lab.reading.sources import SPEAKERS, TRUSTED
from cascade.lab.reading.survey import Survey

SUGGESTED = 9  # labels a question


class Opinion(NamedTuple):
    """What an expert says of a text that it has not learned from, and the probability that it is right."""

    label: str
    confidence: float


class Question(NamedTuple):
    """A text for a person to label.

    Attributes:
        text: the text.
        reason: why it is asked, in words.
        suggested: labels that it may have, the likeliest first.
        value: how much the answer is worth, from 0 to 1.
    """

    text: str
    reason: str
    suggested: tuple[str, ...]
    value: float


def open_questions(
    found: Survey,
    rows: Sequence[Opinion],
    unlabelled: Sequence[tuple[str, Opinion]],
    answered: Collection[str],
) -> list[Question]:
    """Return all texts that a person's answer would be worth something for, each once.

    Args:
        found: the rows.
        rows: the expert's opinion of each of them, from a fit without it.
        unlabelled: texts without a label, with the expert's opinion.
        answered: texts, by `normal_form`, that a person has answered or skipped.
    """
    questions: dict[str, Question] = {}
    for each in found.contradictions:
        listed = ", ".join(f"{label!r}" for label in each.labels)
        reason = f"it has several labels: {listed}"
        questions[normal_form(each.text)] = Question(each.text, reason, tuple(each.labels)[:SUGGESTED], 1.0)
    for row, place, opinion in zip(found.rows, found.places, rows, strict=True):
        if opinion.label == row.label or place.source in TRUSTED:
            continue
        speaker = SPEAKERS.get(place.source or "", "the file")
        reason = (
            f"{speaker}: {row.label!r}, the expert: {opinion.label!r} (confidence {opinion.confidence:.2f})"
        )
        suggested: tuple[str, ...] = (row.label, opinion.label)
        # A sure expert that contradicts has found a wrong label; an unsure one learns from any answer.
        value = 0.5 + 0.5 * opinion.confidence
        questions.setdefault(normal_form(row.text), Question(row.text, reason, suggested, value))
    for text, opinion in unlabelled:
        reason = f"the expert is not sure: {opinion.label!r} (confidence {opinion.confidence:.2f})"
        suggested = (opinion.label,)
        questions.setdefault(normal_form(text), Question(text, reason, suggested, 1.0 - opinion.confidence))
    return [question for form, question in questions.items() if form not in answered]


def most_valuable(values: NDArray[np.float64], vectors: NDArray[np.float32], count: int) -> list[int]:
    """Return the indices of up to `count` candidates, the most valuable first.

    Args:
        values: each candidate's value, shape (candidates,).
        vectors: their unit vectors, shape (candidates, dimensions).
        count: how many are wanted.
    """
    chosen: list[int] = []
    distance = np.ones(len(values))
    left = np.ones(len(values), dtype=bool)
    for _ in range(min(count, len(values))):
        worth = np.where(left, values * distance, -1.0)
        best = int(worth.argmax())
        chosen.append(best)
        left[best] = False
        distance = np.minimum(distance, np.clip(1.0 - vectors @ vectors[best], 0.0, 1.0))
    return chosen
