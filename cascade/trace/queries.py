"""What can be asked of the trace tables."""

from __future__ import annotations

import difflib

from pydantic import ValidationError
from sqlalchemy import Connection, RowMapping, func, select

from cascade.errors import TraceError, UnknownRunError
from cascade.records import Record, Result
from cascade.trace.filters import RunFilter
from cascade.trace.grades import newest_grade
from cascade.trace.rows import from_rows, full_graph
from cascade.trace.search import newest
from cascade.trace.tables import calls, runs, steps

__all__ = ["RunFilter", "RunSummary", "find_run", "list_runs", "read_run", "values_of"]

_TEXT = 200  # characters of the request and of the answer in a summary
_VALUES = 100  # most values of a column that are listed


class RunSummary(Record):
    """One line of a list of runs; the fields are those of `Result`.

    `text` is the answer, or the draft of a run that gave none, `request` what was asked: at most 200
    characters of each. `correct` is the newest grade, if there is one.
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


_SUMMARY = (*(name for name in RunSummary.model_fields if name in runs.c), "digest", "draft", "request_text")


def find_run(connection: Connection, run: str, place: str) -> str:
    """Return the name of the one run that `run` names or begins.

    Raises:
        UnknownRunError: none does, or several do; the message names the nearest.
    """
    for prefix in filter(None, dict.fromkeys((run, run.upper()))):  # run ids are upper case; fingers are not
        within = runs.c.run.between(prefix, prefix + "\U0010ffff")  # unlike LIKE, this uses the index
        query = select(runs.c.run).where(within).order_by(runs.c.run).limit(4)
        names = list(connection.execute(query).scalars())
        if prefix in names or len(names) == 1:
            return prefix if prefix in names else names[0]
        if names:
            raise UnknownRunError(
                f"run {run!r} begins several in {place}: {', '.join(names)} …; give more of it"
            )
    recent = list(connection.execute(select(runs.c.run).order_by(runs.c.seq.desc()).limit(500)).scalars())
    near = difflib.get_close_matches(run.upper(), recent, n=3, cutoff=0.5) or recent[:3]
    hint = f"nearest: {', '.join(near)}" if near else "it has no runs yet"
    raise UnknownRunError(f"run {run!r} is not in {place}; {hint}")


def read_run(connection: Connection, name: str, place: str) -> Result:
    """Return the stored run `name`, which exists.

    Raises:
        TraceError: its rows make no result that this version knows.
    """
    of_run = select(runs).where(runs.c.run == name)
    of_step = select(steps).where(steps.c.run == name).order_by(steps.c.step)
    of_call = select(calls).where(calls.c.run == name).order_by(calls.c.step, calls.c.call)
    try:  # JSON is decoded while the rows are read
        row = connection.execute(of_run).mappings().one()
        return from_rows(row, connection.execute(of_step).mappings(), connection.execute(of_call).mappings())
    except (ValidationError, ValueError, TypeError) as error:
        raise TraceError(
            f"run {name!r} in {place} is damaged or from a newer cascade; compare versions: {error}"
        ) from error


def list_runs(
    connection: Connection, where: RunFilter, *, before: str | None, limit: int
) -> list[RunSummary]:
    """Return summaries, newest first.

    Args:
        connection: to the trace database.
        where: which runs.
        before: only runs stored before this one.
        limit: at most so many.
    """
    below = None
    if before is not None:
        below = connection.execute(select(runs.c.seq).where(runs.c.run == before)).scalar() or 0
    numbers = newest(connection, where, limit=limit, below=below)
    query = select(*(runs.c[name] for name in _SUMMARY), newest_grade().label("correct"))
    query = query.where(runs.c.seq.in_(numbers)).order_by(runs.c.seq.desc())
    return [_summary(row) for row in connection.execute(query).mappings()]


def values_of(connection: Connection, column: str) -> list[str]:
    """Return the values that an indexed text column of `runs` has, sorted; at most 100.

    One look-up in the index for each value, however many runs there are.
    """
    found: list[str] = []
    query = select(func.min(runs.c[column]))
    value = connection.execute(query).scalar()
    while value is not None and len(found) < _VALUES:
        found.append(value)
        value = connection.execute(query.where(runs.c[column] > value)).scalar()
    return found


def _summary(row: RowMapping) -> RunSummary:
    text = row["draft"] if row["text"] is None else row["text"]
    own = {"graph", "text", "request"}
    return RunSummary(
        **{name: row[name] for name in RunSummary.model_fields if name not in own},
        graph=full_graph(row["graph"], row["digest"]),
        text=text and text[:_TEXT],
        request=row["request_text"][:_TEXT],
    )
