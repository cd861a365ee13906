"""Queries of the trace tables: one run, lists of runs, values of a column."""

from __future__ import annotations

import difflib

from pydantic import ValidationError
from sqlalchemy import Connection, RowMapping, func, select

from cascade.errors import TraceError, UnknownRunError
from cascade.records import Record, Result
from cascade.trace._filters import RunFilter, conditions
from cascade.trace._grades import newest_grade
from cascade.trace._rows import from_rows, full_graph, question_of
from cascade.trace._search import newest_runs
from cascade.trace._tables import calls, grades, runs, steps

_MAX_TEXT = 200  # characters of the request and of the answer in a summary
_MAX_VALUES = 100  # of a column that are listed


class RunSummary(Record):
    """One line of a list of runs; the fields are those of `Result`.

    `text` is the answer, or else the draft; `question` is what a waiting run asks a person. `text`,
    `question` and `request` are cut to 200 characters. `correct` is the newest grade, or None.
    """

    run: str
    graph: str
    status: str
    tier: str | None
    rule: str | None
    cost_usd: float
    started: str
    seconds: float
    confidence: float | None
    stage: str | None
    model: str | None
    text: str | None
    request: str
    correct: bool | None = None
    question: str | None = None


_SUMMARY = (
    *(name for name in RunSummary.model_fields if name in runs.c),
    "digest",
    "draft",
    "request_text",
    "tool_calls",
)


def find_run(connection: Connection, run: str, location: str) -> str:
    """Return the name of the only run whose name is `run` or begins with it.

    Raises:
        UnknownRunError: there is none, or several; the message names the nearest.
    """
    for prefix in filter(
        None, dict.fromkeys((run, run.upper()))
    ):  # run ids are upper case, what people type is not
        within = runs.c.run.between(prefix, prefix + "\U0010ffff")  # unlike LIKE, this uses the index
        query = select(runs.c.run).where(within).order_by(runs.c.run).limit(4)
        names = list(connection.execute(query).scalars())
        if prefix in names or len(names) == 1:
            return prefix if prefix in names else names[0]
        if names:
            raise UnknownRunError(
                f"run {run!r} begins several in {location}: {', '.join(names)} …; give more of it"
            )
    recent = list(connection.execute(select(runs.c.run).order_by(runs.c.seq.desc()).limit(500)).scalars())
    near = difflib.get_close_matches(run.upper(), recent, n=3, cutoff=0.5) or recent[:3]
    hint = f"nearest: {', '.join(near)}" if near else "it has no runs yet"
    raise UnknownRunError(f"run {run!r} is not in {location}; {hint}")


def read_run(connection: Connection, name: str, location: str) -> Result:
    """Return the stored run `name`, which must exist.

    Raises:
        TraceError: its rows are no result that this version knows.
    """
    of_run = select(runs).where(runs.c.run == name)
    of_step = select(steps).where(steps.c.run == name).order_by(steps.c.step)
    of_call = select(calls).where(calls.c.run == name).order_by(calls.c.step, calls.c.call)
    try:  # JSON is decoded while rows are read
        row = connection.execute(of_run).mappings().one()
        return from_rows(row, connection.execute(of_step).mappings(), connection.execute(of_call).mappings())
    except (ValidationError, ValueError, TypeError) as error:
        raise TraceError(
            f"run {name!r} in {location} is damaged or from a newer cascade; compare versions: {error}"
        ) from error


def list_runs(
    connection: Connection, where: RunFilter, *, before: str | None, limit: int
) -> list[RunSummary]:
    """Return summaries, newest first.

    Args:
        connection: to the trace database.
        where: which runs.
        before: only runs stored before this one.
        limit: the maximum number of summaries.
    """
    below = None
    if before is not None:
        below = connection.execute(select(runs.c.seq).where(runs.c.run == before)).scalar() or 0
    numbers = newest_runs(connection, where, limit=limit, below=below)
    query = select(*(runs.c[name] for name in _SUMMARY), newest_grade().label("correct"))
    query = query.where(runs.c.seq.in_(numbers)).order_by(runs.c.seq.desc())
    return [_summary(row) for row in connection.execute(query).mappings()]


def values_of(connection: Connection, column: str) -> list[str]:
    """Return up to 100 values of an indexed text column of `runs`, sorted.

    This takes one look-up in the index per value, however many runs there are.
    """
    values: list[str] = []
    query = select(func.min(runs.c[column]))
    value = connection.execute(query).scalar()
    while value is not None and len(values) < _MAX_VALUES:
        values.append(value)
        value = connection.execute(query.where(runs.c[column] > value)).scalar()
    return values


def _summary(row: RowMapping) -> RunSummary:
    text = row["draft"] if row["text"] is None else row["text"]
    own = {"graph", "text", "request", "question"}
    question = question_of(row["tool_calls"])
    return RunSummary(
        **{name: row[name] for name in RunSummary.model_fields if name not in own},
        graph=full_graph(row["graph"], row["digest"]),
        text=text and text[:_MAX_TEXT],
        request=row["request_text"][:_MAX_TEXT],
        question=question and question[:_MAX_TEXT],
    )


def graded_runs(connection: Connection, where: RunFilter) -> dict[str, bool]:
    """Return run → whether its answer was right, by the newest grade of the runs that match `where`."""
    query = select(grades.c.run, grades.c.correct).join(runs, runs.c.run == grades.c.run)
    query = query.where(*conditions(where)).order_by(grades.c.seq)
    return {run: bool(correct) for run, correct in connection.execute(query).all()}
