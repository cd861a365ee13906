"""Removing old runs for good. Their entries stay in the ledger, and an entry says that they were removed."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from cascade.records import Record
from cascade.trace.database import failure, open_engine, parse_url, sqlite_path
from cascade.trace.filters import RunFilter, conditions
from cascade.trace.ledger import Draft, append, body_of_prune, lock, read_key
from cascade.trace.tables import calls, grades, ledger, runs, steps

_BATCH = 1000  # runs in one transaction: others who write wait no longer than that takes


class Pruned(Record):
    """What a pruning removed."""

    runs: int = 0
    grades: int = 0


class Size(Record):
    """How large a database file was before and after it was packed, in bytes; None where it is no file."""

    before: int | None = None
    after: int | None = None


def prune(
    url: str, where: RunFilter, *, note: str, dry_run: bool = False, key: bytes | None = None
) -> Pruned:
    """Remove the runs in `where`, with their grades.

    Until `vacuum`, their texts may still be in the free pages of the file.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file.
        where: which runs.
        note: why, for the ledger.
        dry_run: only count them.
        key: what the entry in the ledger is signed with; default: see `cascade.trace.ledger.read_key`.

    Raises:
        TraceError: the database cannot be read or written to; what was removed so far is removed.
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
        raise failure(error, parsed) from error
    finally:
        engine.dispose()
    return total


def _count(engine: Engine, where: RunFilter) -> Pruned:
    names = select(runs.c.run).where(*_old(where))
    with engine.connect() as connection:
        of_grades = select(func.count()).select_from(grades).where(grades.c.run.in_(names))
        return Pruned(
            runs=connection.execute(select(func.count()).select_from(names.subquery())).scalar_one(),
            grades=connection.execute(of_grades).scalar_one(),
        )


def _old(where: RunFilter) -> list[ColumnElement[bool]]:
    return [*conditions(where), runs.c.started != ""]  # nobody knows how old a run without a time is


def _batch(engine: Engine, where: RunFilter, note: str, key: bytes | None) -> Pruned:
    """Remove some of the runs and say so in the ledger, in one transaction."""
    with engine.begin() as connection:
        lock(connection)
        query = select(runs.c.seq, runs.c.run).where(*_old(where)).order_by(runs.c.seq).limit(_BATCH)
        found = connection.execute(query).all()
        if not found:
            return Pruned()
        names = [row.run for row in found]
        graded = connection.execute(select(grades.c.seq).where(grades.c.run.in_(names))).scalars().all()
        entries = sorted([row.seq for row in found] + list(graded))
        (number,) = append(connection, [Draft("prune", None, body_of_prune(entries), note)], key)
        for start in range(0, len(entries), _BATCH):
            some = entries[start : start + _BATCH]
            connection.execute(update(ledger).where(ledger.c.seq.in_(some)).values(pruned=number))
        for table in (grades, calls, steps, runs):
            connection.execute(delete(table).where(table.c.run.in_(names)))
        return Pruned(runs=len(found), grades=len(graded))


def vacuum(url: str) -> Size:
    """Give the space of what was removed back to the disk.

    Raises:
        TraceError: the database cannot be written to, or somebody else is using it.
    """
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    engine = open_engine(parsed, create=False)
    if engine is None:
        return Size()
    engine.dispose()
    engine = open_engine(parsed, create=True)
    if engine is None:
        return Size()
    try:
        before = path and path.stat().st_size
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _pack(connection)
        return Size(before=before, after=path and path.stat().st_size)
    except SQLAlchemyError as error:
        raise failure(error, parsed) from error
    finally:
        engine.dispose()


def _pack(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("VACUUM ANALYZE")
        return
    connection.exec_driver_sql("VACUUM")
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
