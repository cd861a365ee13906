"""Reads many runs in full, a few hundred at a time, for replays and monitors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, RowMapping, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from cascade.errors import TraceError
from cascade.records import Result
from cascade.trace._filters import RunFilter, conditions
from cascade.trace._queries import graded_runs
from cascade.trace._rows import from_rows
from cascade.trace._tables import calls, runs, steps
from cascade.trace.database import display_url, open_engine, parse_url, read_snapshot, trace_error

_CHUNK = 500


def history(url: str, where: RunFilter) -> Iterator[Result]:
    """Yield the stored runs that match `where`, in full, in the order they were stored.

    A database that does not exist has no runs.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file.
        where: which runs.

    Raises:
        TraceError: the database cannot be read, or a run in it is damaged.
    """
    parsed = parse_url(url)
    engine = open_engine(parsed, create=False)
    if engine is None:
        return
    wanted = list(conditions(where))
    last = 0
    try:
        while True:
            with engine.connect() as connection:
                query = select(runs).where(runs.c.seq > last, *wanted).order_by(runs.c.seq).limit(_CHUNK)
                results, last = _read(connection, display_url(parsed), query, last)
            if not results:
                return
            yield from results
    except SQLAlchemyError as error:
        raise trace_error(error, parsed) from error
    finally:
        engine.dispose()


def _read(connection: Connection, location: str, query: Select[Any], last: int) -> tuple[list[Result], int]:
    """Return the runs of `query`, and the number of the last one."""
    name = "?"
    try:
        rows = list(connection.execute(query).mappings())
        names = [row["run"] for row in rows]
        of_step = _by_run(connection, select(steps).where(steps.c.run.in_(names)).order_by(steps.c.step))
        ordered = select(calls).where(calls.c.run.in_(names)).order_by(calls.c.step, calls.c.call)
        of_call = _by_run(connection, ordered)
        results = []
        for row in rows:
            name = row["run"]
            results.append(from_rows(row, of_step.get(name, []), of_call.get(name, [])))
            last = row["seq"]
    except (ValidationError, ValueError, TypeError) as error:
        raise TraceError(
            f"run {name!r} in {location} is damaged or from a newer cascade; compare versions: {error}"
        ) from error
    return results, last


def _by_run(connection: Connection, query: Select[Any]) -> dict[str, list[RowMapping]]:
    groups: dict[str, list[RowMapping]] = {}
    for row in connection.execute(query).mappings():
        groups.setdefault(row["run"], []).append(row)
    return groups


def newest_grades(url: str, where: RunFilter) -> dict[str, bool]:
    """Return run → whether its answer was right, by the newest grade of each graded run that matches `where`.

    Raises:
        TraceError: the database cannot be read.
    """
    with read_snapshot(url) as connection:
        return {} if connection is None else graded_runs(connection, where)


def max_call_costs(url: str, where: RunFilter) -> dict[str, float]:
    """Return the cost of the most expensive call of each model in the runs that match `where`, in USD.

    Raises:
        TraceError: the database cannot be read.
    """
    query = select(calls.c.model, func.max(calls.c.cost_usd)).join(runs, runs.c.run == calls.c.run)
    query = query.where(*conditions(where)).group_by(calls.c.model)
    with read_snapshot(url) as connection:
        return {} if connection is None else {row[0]: row[1] for row in connection.execute(query)}
