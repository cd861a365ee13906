"""Finding the texts that a person should label: a quick expert is fitted, and asked where it is in doubt."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from cascade.config.references import bundled_path
from cascade.errors import RequestError
from cascade.lab.learning.embed import embed_texts
from cascade.lab.learning.fit import FittedHead, Rows, fit_head
from cascade.lab.learning.questions import SUGGESTED, Opinion, Question, most_valuable, open_questions
from cascade.lab.learning.session import Session
from cascade.lab.learning.survey import Survey

MAX_ROWS = 20_000  # that the quick expert learns from, and texts without a label that it looks at
MAX_TOKENS = 128  # of a text that it reads: a doubt shows early
_ENCODER = "encoder"
Matrix = NDArray[np.float32]


def find_questions(
    found: Survey,
    unlabelled: Sequence[str],
    count: int,
    session: Session,
    *,
    answered: Collection[str] = (),
    seed: int = 0,
) -> list[Question]:
    """Return up to `count` texts for a person, the most valuable first.

    Args:
        found: the rows.
        unlabelled: texts without a label.
        count: how many are wanted.
        session: the clock and the progress.
        answered: texts, by their `normal_form`, that a person has answered or skipped.
        seed: of the folds, and of the choice where there are more than `MAX_ROWS`.

    Raises:
        RequestError: there is nothing to ask.
        ModelError: llama.cpp cannot load the encoder.
    """
    random = np.random.default_rng(seed)
    rows, texts = _some(len(found.rows), random), [unlabelled[i] for i in _some(len(unlabelled), random)]
    row_texts = [found.rows[index].text for index in rows]
    vectors = embed_texts(bundled_path(_ENCODER), [*row_texts, *texts], MAX_TOKENS, session.report)
    fitted = _fit(found, rows, vectors[: len(rows)], session, seed)
    opinions = _opinions(found, rows, fitted)
    doubts = [
        (text, _opinion(fitted, vector, text))
        for text, vector in zip(texts, vectors[len(rows) :], strict=True)
    ]
    questions = open_questions(found, opinions, doubts, answered)
    if not questions:
        raise RequestError(
            f"{found.name}: nothing to ask: the expert agrees with every label; "
            "--unlabelled FILE gives texts that nobody has labelled"
        )
    known = dict(zip([*row_texts, *texts], vectors, strict=True))
    asked = [question for question in questions if question.text in known]
    points = np.stack([known[question.text] for question in asked])
    chosen = most_valuable(np.array([question.value for question in asked]), points, count)
    return [_with_suggestions(asked[index], fitted, points[index]) for index in chosen]


def _some(total: int, random: np.random.Generator) -> list[int]:
    """Return the indices of all, or of so many that are drawn."""
    if total <= MAX_ROWS:
        return list(range(total))
    drawn: list[int] = np.sort(random.choice(total, MAX_ROWS, replace=False)).tolist()
    return drawn


def _fit(found: Survey, rows: Sequence[int], vectors: Matrix, session: Session, seed: int) -> FittedHead:
    own = Rows(
        [found.rows[index].text for index in rows],
        [found.rows[index].label for index in rows],
        np.array([found.groups[index] for index in rows], dtype=np.intp),
    )
    return fit_head(own, vectors, seed=seed, deadline=session.seconds_left, report=session.report)


def _opinions(found: Survey, rows: Sequence[int], fitted: FittedHead) -> list[Opinion]:
    """Return an opinion of each row from a fit without it; of rows that were not drawn, their own label."""
    opinions = [Opinion(row.label, 1.0) for row in found.rows]
    for place, index in enumerate(rows):
        label = fitted.head.labels[int(fitted.scores.predicted[place])]
        opinions[index] = Opinion(label, float(fitted.scores.confidence[place]))
    return opinions


def _opinion(fitted: FittedHead, vector: Matrix, text: str) -> Opinion:
    answer = fitted.head.answer(vector, text)
    return Opinion(fitted.head.labels[int(answer.probabilities.argmax())], answer.confidence)


def _with_suggestions(question: Question, fitted: FittedHead, vector: Matrix) -> Question:
    """Return the question with the labels that the expert finds likeliest behind those it has."""
    chances = fitted.head.answer(vector, question.text).probabilities
    likely = [fitted.head.labels[index] for index in np.argsort(-chances, kind="stable")[:SUGGESTED]]
    return question._replace(suggested=tuple(dict.fromkeys([*question.suggested, *likely]))[:SUGGESTED])
