"""What many runs amount to: the figures of the newest ones, and where their tiers disagreed."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, RowMapping, Select, func, select

from cascade.records import Record
from cascade.trace.filters import RunFilter
from cascade.trace.grades import newest_grade
from cascade.trace.search import newest
from cascade.trace.tables import calls, runs, steps

_TEXT = 200  # characters of a text


class Figures(Record):
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


class Opinion(Record):
    """What one stage of a run took for the answer, and how sure it was; `closed` if it is one of a set."""

    tier: str
    model: str
    text: str
    confidence: float | None
    closed: bool


class Overview(Record):
    """The newest runs, the last stored first, and what the stages of those with several drafts answered."""

    figures: tuple[Figures, ...] = ()
    opinions: dict[str, tuple[Opinion, ...]] = Field(default_factory=dict)


def read_overview(connection: Connection, where: RunFilter, limit: int) -> Overview:
    """Return the figures of the newest `limit` runs in `where`."""
    numbers = newest(connection, where, limit=limit)
    names = [name for name in Figures.model_fields if name in runs.c]
    query = select(
        *(runs.c[name] for name in names),
        func.substr(runs.c.request_text, 1, _TEXT).label("request"),
        newest_grade().label("correct"),
    )
    query = query.where(runs.c.seq.in_(numbers)).order_by(runs.c.seq.desc())
    figures = tuple(Figures(**row) for row in connection.execute(query).mappings())
    return Overview(
        figures=figures, opinions=_opinions(connection, select(runs.c.run).where(runs.c.seq.in_(numbers)))
    )


def _opinions(connection: Connection, names: Select[Any]) -> dict[str, tuple[Opinion, ...]]:
    """Return the drafts of every run in `names` that has more than one: one a stage."""
    text = func.substr(calls.c.text, 1, _TEXT).label("text")
    columns = (calls.c.run, calls.c.step, calls.c.call, calls.c.tier, calls.c.model, text)
    query = (
        select(*columns, calls.c.labels.is_not(None).label("closed"), steps.c.chosen, steps.c.confidence)
        .join_from(calls, steps, (steps.c.run == calls.c.run) & (steps.c.step == calls.c.step))
        .where(calls.c.run.in_(names), calls.c.role == "answer", calls.c.error.is_(None))
        .order_by(calls.c.run, calls.c.step, calls.c.call)
    )
    found = {}
    for run, rows in groupby(connection.execute(query).mappings(), key=lambda row: row["run"]):
        drafts = tuple(_draft(list(group)) for _, group in groupby(rows, key=lambda row: row["step"]))
        if len(drafts) > 1:
            found[run] = drafts
    return found


def _draft(answers: list[RowMapping]) -> Opinion:
    """The draft that was judged, else the first that did not fail."""
    row = next((row for row in answers if row["call"] == row["chosen"]), answers[0])
    return Opinion(**{name: row[name] for name in Opinion.model_fields})
