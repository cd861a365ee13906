"""Asking a person: a quick expert finds the texts that are worth it; a terminal or an inbox asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cascade.config.load import load_graph
from cascade.config.references import bundled_path
from cascade.errors import RequestError
from cascade.lab.fitting.embed import embed_texts
from cascade.lab.fitting.fit import FittedHead, Rows, fit_head
from cascade.lab.learning.data import read_texts, surveyed
from cascade.lab.learning.session import Note, Report, Session, StoppedError
from cascade.lab.learning.settings import MINUTES, check_installed
from cascade.lab.reading.answers import PersonAnswer, add_answer, answers_path, read_answers
from cascade.lab.reading.from_traces import TraceOptions
from cascade.lab.reading.inbox import asked_texts, has_inbox
from cascade.lab.reading.questions import SUGGESTED, Opinion, Question, most_valuable, open_questions
from cascade.lab.reading.row_reading import RowOptions
from cascade.lab.reading.survey import Survey

MAX_ROWS = 20_000  # that the quick expert learns from, and texts without a label that it looks at
MAX_TOKENS = 128  # of a text that it reads: a doubt shows early
_ENCODER = "encoder"
Matrix = NDArray[np.float32]


class Picked(NamedTuple):
    """The texts that a person should label.

    Attributes:
        questions: the texts, the most valuable first.
        labels: all labels that there are.
        answers: the file for the answers (`add_answer`).
        inbox: whether the graph has a person, whose inbox asks (`put_into_inbox`).
    """

    questions: list[Question]
    labels: list[str]
    answers: Path
    inbox: bool = False

    def keep(self, text: str, label: str | None) -> None:
        """Keep the label of a text; None: it was skipped.

        Raises:
            RequestError: it cannot be stored.
        """
        add_answer(self.answers, PersonAnswer(text, label))


def pick_questions(
    source: str | Path,
    count: int,
    *,
    text: str | None = None,
    label: str | None = None,
    unlabelled: str | Path | None = None,
    rows: RowOptions | None = None,
    traces: TraceOptions | None = None,
    seed: int = 0,
    minutes: float = MINUTES,
    on_progress: Report | None = None,
    on_note: Note | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Picked:
    """Pick the most valuable texts of a file, or of a graph's stored runs, for a person to label.

    Texts that were answered, skipped or put into the inbox before are not picked again.

    Args:
        source: the file of rows; with `traces` the graph.
        count: how many texts.
        text: the column of the texts; default: guessed.
        label: the column of the labels; default: guessed.
        unlabelled: a file of texts without labels.
        rows: what else is told of the rows.
        traces: which stored runs of the graph.
        seed: seed of every random choice.
        minutes: how long the fit may take.
        on_progress: called with a stage and the share of it that is done.
        on_note: called with each line about the rows.
        stopped: asked now and then whether to stop.

    Raises:
        RequestError: nothing can be learned from the rows, or there is nothing to ask.
        StoppedError: somebody has stopped it.
        ModelError: llama.cpp cannot load the encoder.
    """
    check_installed()
    source, session = Path(source), Session(minutes, on_progress, on_note, stopped)
    found = surveyed(source, text, label, rows or RowOptions(), traces)
    for line in found.lines():
        session.note(line)
    texts = found.unlabelled
    if unlabelled is not None:
        texts = [*texts, *read_texts(Path(unlabelled), found.columns.text)]
    beside = answers_path(source)
    answered = set(read_answers(beside))
    inbox = False
    if traces is not None:
        loaded = load_graph(source)
        inbox = has_inbox(loaded)
        answered |= asked_texts(loaded, traces.trace_db) if inbox else set()
    questions = find_questions(found, texts, count, session, answered=answered, seed=seed)
    return Picked(questions, sorted(found.counts), beside, inbox)


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
        StoppedError: somebody has stopped it.
        ModelError: llama.cpp cannot load the encoder.
    """
    random = np.random.default_rng(seed)
    rows, texts = _some(len(found.rows), random), [unlabelled[i] for i in _some(len(unlabelled), random)]
    row_texts = [found.rows[index].text for index in rows]
    vectors = embed_texts(bundled_path(_ENCODER), [*row_texts, *texts], MAX_TOKENS, _stoppable(session))
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


def _stoppable(session: Session) -> Report:
    def report(stage: str, share: float) -> None:
        if session.stopped:
            raise StoppedError("stopped: no text was picked yet")
        session.report(stage, share)

    return report


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
