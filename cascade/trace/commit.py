"""Committing runs: one transaction for a group of them, with their entries in the ledger."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cascade.trace.ledger import Draft, append, body_of_run, kind_of, lock
from cascade.trace.rows import Rows, insertion
from cascade.trace.tables import calls, runs, steps

_INSERTIONS = {table.name: insertion(table) for table in (runs, steps, calls)}


def commit(
    engine: Engine, group: list[Rows], *, resumed: bool = False, key: bytes | None = None
) -> Exception | None:
    """Insert `group` in one transaction; with `resumed`, in place of runs that waited for a person.

    Returns the error if that failed; nothing was stored then.
    """
    try:
        with engine.begin() as connection:
            lock(connection)
            if resumed:
                names = [rows.run["run"] for rows in group]
                connection.execute(delete(runs).where(runs.c.run.in_(names), runs.c.status == "waiting"))
            insert_runs(connection, group, key)
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the callers, not to this thread
        if isinstance(error, OperationalError):
            engine.dispose()  # the next group starts with a new connection
        return error
    return None


def insert_runs(connection: Connection, group: list[Rows], key: bytes | None) -> None:
    """Insert `group` and its entries in the ledger, in a transaction that holds the ledger's lock."""
    drafts = [Draft(kind_of(rows.run["status"]), rows.run["run"], body_of_run(rows)) for rows in group]
    numbers = append(connection, drafts, key)
    tables = (
        ("runs", [rows.run | {"seq": seq} for rows, seq in zip(group, numbers, strict=True)]),
        ("steps", [row for rows in group for row in rows.steps]),
        ("calls", [row for rows in group for row in rows.calls]),
    )
    for name, items in tables:
        if items:
            connection.execute(_INSERTIONS[name], items)


def is_stored(engine: Engine, run: str) -> bool:
    """Return whether `run` is in the database; False if that cannot be found out."""
    try:
        with engine.connect() as connection:
            return connection.execute(select(runs.c.seq).where(runs.c.run == run)).first() is not None
    except SQLAlchemyError:
        return False  # the first error is the one to report
