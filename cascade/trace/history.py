"""Many stored runs in full, a few hundred at a time: what replays and monitors read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, RowMapping, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from cascade.errors import TraceError
from cascade.records import Result
from cascade.trace.database import failure, open_engine, parse_url, place
from cascade.trace.filters import RunFilter, conditions
from cascade.trace.rows import from_rows
from cascade.trace.tables import calls, runs, steps

_CHUNK = 500


def history(url: str, where: RunFilter) -> Iterator[Result]:
    """Yield the stored runs in `where`, in full, the first stored first; a missing store has none.

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
                found, last = _read(connection, place(parsed), query, last)
            if not found:
                return
            yield from found
    except SQLAlchemyError as error:
        raise failure(error, parsed) from error
    finally:
        engine.dispose()


def _read(connection: Connection, file: str, query: Select[Any], last: int) -> tuple[list[Result], int]:
    """Return the runs of `query`, and the number of the last one."""
    name = "?"
    try:
        rows = list(connection.execute(query).mappings())
        names = [row["run"] for row in rows]
        of_step = _by_run(connection, select(steps).where(steps.c.run.in_(names)).order_by(steps.c.step))
        ordered = select(calls).where(calls.c.run.in_(names)).order_by(calls.c.step, calls.c.call)
        of_call = _by_run(connection, ordered)
        found = []
        for row in rows:
            name = row["run"]
            found.append(from_rows(row, of_step.get(name, []), of_call.get(name, [])))
            last = row["seq"]
    except (ValidationError, ValueError, TypeError) as error:
        raise TraceError(
            f"run {name!r} in {file} is damaged or from a newer cascade; compare versions: {error}"
        ) from error
    return found, last


def _by_run(connection: Connection, query: Select[Any]) -> dict[str, list[RowMapping]]:
    found: dict[str, list[RowMapping]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["run"], []).append(row)
    return found


def dearest_calls(url: str, where: RunFilter) -> dict[str, float]:
    """Return, for each model that the runs in `where` called, what its dearest call cost, in USD.

    Raises:
        TraceError: the database cannot be read.
    """
    parsed = parse_url(url)
    engine = open_engine(parsed, create=False)
    if engine is None:
        return {}
    query = select(calls.c.model, func.max(calls.c.cost_usd)).join(runs, runs.c.run == calls.c.run)
    query = query.where(*conditions(where)).group_by(calls.c.model)
    try:
        with engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}
    except SQLAlchemyError as error:
        raise failure(error, parsed) from error
    finally:
        engine.dispose()
