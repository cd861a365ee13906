"""Committing runs: one transaction for a group of them."""

from __future__ import annotations

from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cascade.trace.tables import Rows, calls, runs, steps


def commit(engine: Engine, group: list[Rows], *, resumed: bool = False) -> Exception | None:
    """Insert `group` in one transaction; with `resumed`, in place of runs that waited for a person.

    Returns the error if that failed; nothing was stored then.
    """
    tables = (
        (runs, [rows.run for rows in group]),
        (steps, [row for rows in group for row in rows.steps]),
        (calls, [row for rows in group for row in rows.calls]),
    )
    try:
        with engine.begin() as connection:
            if resumed:
                names = [rows.run["run"] for rows in group]
                connection.execute(delete(runs).where(runs.c.run.in_(names), runs.c.status == "waiting"))
            for table, items in tables:
                if items:
                    connection.execute(insert(table), items)
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the callers, not to this thread
        if isinstance(error, OperationalError):
            engine.dispose()  # the next group starts with a new connection
        return error
    return None


def is_stored(engine: Engine, run: str) -> bool:
    """Return whether `run` is in the database; False if that cannot be found out."""
    try:
        with engine.connect() as connection:
            return connection.execute(select(runs.c.seq).where(runs.c.run == run)).first() is not None
    except SQLAlchemyError:
        return False  # the first error is the one to report
