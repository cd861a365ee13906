"""Stored runs as a file and back: JSON Lines, or Parquet for analysis. More runs need no more memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from cascade.errors import TraceError
from cascade.records import Record
from cascade.trace.commit import insert_runs
from cascade.trace.database import failure, open_engine, parse_url, place, reading
from cascade.trace.filters import RunFilter, conditions
from cascade.trace.formats import Kept, read_jsonl, read_parquet, write_jsonl, write_parquet
from cascade.trace.grades import Grade, insert_grades
from cascade.trace.ledger import body_of_run, lock, read_key
from cascade.trace.rows import Rows, raw, raw_chunks, raw_rows
from cascade.trace.tables import grades, ledger, runs

_BATCH = 200  # runs in one transaction of an import


class Imported(Record):
    """What an import stored, and what was there already."""

    runs: int = 0
    grades: int = 0
    present: int = 0


def export_runs(url: str, file: Path, where: RunFilter) -> int:
    """Write the runs in `where`, the first stored first, to a new file; return how many there were.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file.
        file: ends in `.jsonl` or `.parquet`.
        where: which runs.

    Raises:
        TraceError: the file exists or has another ending, or the database cannot be read.
        OSError: the file cannot be written; no part of it is left then.
    """
    write = write_parquet if _is_parquet(file) else write_jsonl
    if file.exists():
        raise TraceError(f"{file} exists already; give the name of a new file")
    part = file.with_name(file.name + ".part")
    try:
        with reading(url) as connection:
            written = write(part, iter(()) if connection is None else _stored(connection, where))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return written


def import_runs(url: str, file: Path, *, key: bytes | None = None) -> Imported:
    """Store the runs and grades of an exported file; what is stored already is left as it is.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file, which is made if it is missing.
        file: what `export_runs` wrote.
        key: what entries of the ledger are signed with; default: see `cascade.trace.ledger.read_key`.

    Raises:
        TraceError: a part of the file is no run, or a different run with its id is stored; what stands before
            it in the file is stored then, and importing again goes on from there.
    """
    parsed = parse_url(url)
    key = key or read_key()
    read = read_parquet if _is_parquet(file) else read_jsonl
    if not file.is_file():
        raise TraceError(f"{file} is no file; give one that `cascade trace export` wrote")
    engine = open_engine(parsed, create=True)
    if engine is None:
        raise TraceError(f"trace database {place(parsed)} cannot be made; nothing was imported")
    total = Imported()
    try:
        for batch in _batches(read(file)):
            done = _import(engine, batch, key, place(parsed))
            total = Imported(
                runs=total.runs + done.runs,
                grades=total.grades + done.grades,
                present=total.present + done.present,
            )
    except SQLAlchemyError as error:
        raise failure(error, parsed) from error
    finally:
        engine.dispose()
    return total


def _is_parquet(file: Path) -> bool:
    if file.suffix not in (".jsonl", ".parquet"):
        raise TraceError(f"{file} ends in {file.suffix!r}; expected .jsonl or .parquet")
    return file.suffix == ".parquet"


def _stored(connection: Connection, where: RunFilter) -> Iterator[Kept]:
    """Yield the runs in `where` with their grades."""
    for chunk in raw_chunks(connection, raw(runs).where(*conditions(where))):
        query = select(grades).where(grades.c.run.in_([row["run"] for row in chunk])).order_by(grades.c.seq)
        given: dict[str, list[Grade]] = {}
        for row in connection.execute(query).mappings():
            grade = Grade(**{name: row[name] for name in Grade.model_fields})
            given.setdefault(grade.run, []).append(grade)
        for rows in raw_rows(connection, chunk):
            yield Kept(rows, tuple(given.get(rows.run["run"], ())))


def _import(engine: Engine, batch: list[Kept], key: bytes | None, where: str) -> Imported:
    """Store what is new of a batch, in one transaction."""
    plain = engine.dialect.name == "postgresql"
    with engine.begin() as connection:
        lock(connection)
        known = _bodies(connection, [kept.rows.run["run"] for kept in batch])
        fresh: list[Rows] = []
        for kept in batch:
            rows = kept.rows.without_nul() if plain else kept.rows
            name, body = rows.run["run"], body_of_run(rows)
            if name not in known:
                known[name] = body
                fresh.append(rows)
            elif known[name] != body:
                raise TraceError(
                    f"run {name!r} of the file is another than the run {name!r} in {where}; it was left "
                    "as it is; import the file into another --trace-db"
                )
        insert_runs(connection, fresh, key)
        added = _new_grades(connection, [grade for kept in batch for grade in kept.grades])
        insert_grades(connection, added, key)
    return Imported(runs=len(fresh), grades=len(added), present=len(batch) - len(fresh))


def _bodies(connection: Connection, names: list[str]) -> dict[str, bytes]:
    """Return what the ledger says of the runs that are stored."""
    query = select(runs.c.run, ledger.c.body).join(ledger, ledger.c.seq == runs.c.seq)
    return {row.run: bytes(row.body) for row in connection.execute(query.where(runs.c.run.in_(names)))}


def _new_grades(connection: Connection, given: list[Grade]) -> list[Grade]:
    """Return the grades that are not stored yet."""
    columns = [grades.c[name] for name in Grade.model_fields]
    query = select(*columns).where(grades.c.run.in_({grade.run for grade in given}))
    known = Counter(Grade(**row) for row in connection.execute(query).mappings())
    fresh = []
    for grade in given:
        if known[grade]:
            known[grade] -= 1
        else:
            fresh.append(grade)
    return fresh


def _batches(items: Iterator[Kept]) -> Iterator[list[Kept]]:
    while batch := list(islice(items, _BATCH)):
        yield batch
