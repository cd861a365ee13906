"""What many runs amount to: the figures of the newest ones, and where their tiers disagreed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from cascade.trace.filters import RunFilter
from cascade.trace.grades import newest_grade
from cascade.trace.search import newest, numbered
from cascade.trace.tables import calls, runs, steps

WINDOW = 2000  # newest runs that are looked at: so many that a page of them takes no tenth of a second
_TEXT = 200  # characters of a text


class Figures(NamedTuple):
    """The numbers of one run; the fields are those of `Result`, `correct` is its newest grade."""

    run: str
    status: str
    tier: str | None
    confidence: float | None
    cost_usd: float
    baseline_cost_usd: float | None
    baseline_model: str | None
    seconds: float
    started: str
    request: str
    correct: bool | None


class Opinion(NamedTuple):
    """What one stage of a run took for the answer, and how sure it was; `closed` if it is one of a set."""

    tier: str
    model: str
    text: str
    confidence: float | None
    closed: bool


class Overview(NamedTuple):
    """The newest runs, the last stored first, and what the stages of those with several drafts answered."""

    figures: Sequence[Figures] = ()
    opinions: dict[str, tuple[Opinion, ...]] = {}  # noqa: RUF012 - nobody changes it


def read_overview(connection: Connection, where: RunFilter, limit: int) -> Overview:
    """Return the figures of the newest `limit` runs in `where`."""
    mine = numbered(connection, newest(connection, where, limit=limit))
    given: dict[str, ColumnElement[Any]] = {
        "request": func.substr(runs.c.request_text, 1, _TEXT),
        "correct": newest_grade(),
    }
    columns = [given[name] if name in given else runs.c[name] for name in Figures._fields]
    query = select(*columns).where(mine).order_by(runs.c.seq.desc())
    figures = [Figures(*row) for row in connection.execute(query).all()]
    return Overview(figures, _opinions(connection, mine))


def _opinions(connection: Connection, mine: ColumnElement[bool]) -> dict[str, tuple[Opinion, ...]]:
    """Return the drafts of every one of these runs that has more than one: one a stage."""
    text = func.substr(calls.c.text, 1, _TEXT)
    opinion = (calls.c.tier, calls.c.model, text, steps.c.confidence, calls.c.labels.is_not(None))
    query = (
        select(calls.c.run, calls.c.step, calls.c.call, steps.c.chosen, *opinion)
        .join_from(calls, steps, (steps.c.run == calls.c.run) & (steps.c.step == calls.c.step))
        .where(
            calls.c.run.in_(select(runs.c.run).where(mine)), calls.c.role == "answer", calls.c.error.is_(None)
        )
        .order_by(calls.c.run, calls.c.step, calls.c.call)
    )
    found = {}
    for run, rows in groupby(connection.execute(query).all(), key=itemgetter(0)):
        answers = list(rows)
        if answers[0][1] != answers[-1][1]:  # of several steps
            found[run] = tuple(_draft(list(group)) for _, group in groupby(answers, key=itemgetter(1)))
    return found


def _draft(answers: Sequence[Sequence[Any]]) -> Opinion:
    """The draft that was judged, else the first that did not fail."""
    row = next((row for row in answers if row[2] == row[3]), answers[0])
    return Opinion(*row[4:])
