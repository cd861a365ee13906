"""Removes old runs for good. Their ledger entries stay, and a new entry records the removal."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from cascade.records import Record
from cascade.trace._filters import RunFilter, conditions
from cascade.trace._ledger import PendingEntry, append_entries, hash_pruned, lock_ledger, read_key
from cascade.trace._tables import calls, grades, ledger, runs, steps
from cascade.trace.database import open_engine, parse_url, sqlite_path, trace_error

_BATCH = 1000  # runs in one transaction, so that other writers wait only briefly


class Pruned(Record):
    """How many runs and grades were removed."""

    runs: int = 0
    grades: int = 0


class FileSize(Record):
    """Bytes of a database file before and after it was packed; None if the database is not a file."""

    before: int | None = None
    after: int | None = None


def prune(
    url: str, where: RunFilter, *, note: str, dry_run: bool = False, key: bytes | None = None
) -> Pruned:
    """Remove the runs that match `where`, with their grades.

    Until `vacuum`, their texts may remain in free pages of the file.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file.
        where: which runs.
        note: the reason, for the ledger.
        dry_run: only count them.
        key: signs the ledger entry; default: see `cascade.trace.read_key`.

    Raises:
        TraceError: the database cannot be read or written; what was removed until then stays removed.
    """
    parsed = parse_url(url)
    key = key or read_key()
    engine = open_engine(parsed, create=False)
    if engine is not None and not dry_run:
        engine.dispose()
        engine = open_engine(parsed, create=True)
    if engine is None:
        return Pruned()
    try:
        if dry_run:
            return _count(engine, where)
        total = Pruned()
        while (batch := _batch(engine, where, note, key)).runs:
            total = Pruned(runs=total.runs + batch.runs, grades=total.grades + batch.grades)
    except SQLAlchemyError as error:
        raise trace_error(error, parsed) from error
    finally:
        engine.dispose()
    return total


def _count(engine: Engine, where: RunFilter) -> Pruned:
    names = select(runs.c.run).where(*_conditions(where))
    with engine.connect() as connection:
        of_grades = select(func.count()).select_from(grades).where(grades.c.run.in_(names))
        return Pruned(
            runs=connection.execute(select(func.count()).select_from(names.subquery())).scalar_one(),
            grades=connection.execute(of_grades).scalar_one(),
        )


def _conditions(where: RunFilter) -> list[ColumnElement[bool]]:
    return [*conditions(where), runs.c.started != ""]  # the age of a run without a start time is unknown


def _batch(engine: Engine, where: RunFilter, note: str, key: bytes | None) -> Pruned:
    """Remove up to a thousand runs and record it in the ledger, in one transaction."""
    with engine.begin() as connection:
        lock_ledger(connection)
        query = select(runs.c.seq, runs.c.run).where(*_conditions(where)).order_by(runs.c.seq).limit(_BATCH)
        removed = connection.execute(query).all()
        if not removed:
            return Pruned()
        names = [row.run for row in removed]
        graded = connection.execute(select(grades.c.seq).where(grades.c.run.in_(names))).scalars().all()
        entries = sorted([row.seq for row in removed] + list(graded))
        (number,) = append_entries(connection, [PendingEntry("prune", None, hash_pruned(entries), note)], key)
        for start in range(0, len(entries), _BATCH):
            batch = entries[start : start + _BATCH]
            connection.execute(update(ledger).where(ledger.c.seq.in_(batch)).values(pruned=number))
        for table in (grades, calls, steps, runs):
            connection.execute(delete(table).where(table.c.run.in_(names)))
        return Pruned(runs=len(removed), grades=len(graded))


def vacuum(url: str) -> FileSize:
    """Give the space of what was removed back to the disk.

    Raises:
        TraceError: the database cannot be written to, or somebody else is using it.
    """
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    engine = open_engine(parsed, create=False)
    if engine is None:
        return FileSize()
    engine.dispose()
    engine = open_engine(parsed, create=True)
    if engine is None:
        return FileSize()
    try:
        before = path and path.stat().st_size
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _pack(connection)
        return FileSize(before=before, after=path and path.stat().st_size)
    except SQLAlchemyError as error:
        raise trace_error(error, parsed) from error
    finally:
        engine.dispose()


def _pack(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("VACUUM ANALYZE")
        return
    connection.exec_driver_sql("VACUUM")
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
