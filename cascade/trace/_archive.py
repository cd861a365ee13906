"""Exports runs to a file and imports them: JSON Lines, or Parquet for analysis; memory use is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from cascade.errors import TraceError
from cascade.files import keep_private
from cascade.records import Record
from cascade.trace._filters import RunFilter, conditions
from cascade.trace._formats import ArchivedRun, read_jsonl, read_parquet, write_jsonl, write_parquet
from cascade.trace._grades import Grade, insert_grades
from cascade.trace._ledger import hash_run, lock_ledger, read_key
from cascade.trace._rows import RunRows, raw_batches, raw_rows, select_raw
from cascade.trace._tables import grades, ledger, runs
from cascade.trace._writing import insert_runs
from cascade.trace.database import display_url, open_engine, parse_url, read_snapshot, trace_error

_BATCH = 200  # runs in one transaction of an import


class Imported(Record):
    """How many runs and grades an import stored; `present` runs were stored already."""

    runs: int = 0
    grades: int = 0
    present: int = 0


def export_runs(url: str, file: Path, where: RunFilter) -> int:
    """Write the runs that match `where` to a new file, in the order they were stored; return their number.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file.
        file: ends in `.jsonl` or `.parquet`.
        where: which runs.

    Raises:
        TraceError: the file exists or has another ending, or the database cannot be read.
        OSError: the file cannot be written; no partial file remains.
    """
    write = write_parquet if _is_parquet(file) else write_jsonl
    if file.exists():
        raise TraceError(f"{file} exists already; give the name of a new file")
    part = file.with_name(file.name + ".part")
    try:
        part.unlink(missing_ok=True)
        keep_private(part)
        with read_snapshot(url) as connection:
            written = write(part, iter(()) if connection is None else _stored(connection, where))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return written


def import_runs(url: str, file: Path, *, key: bytes | None = None) -> Imported:
    """Store the runs and grades of an exported file; runs that are stored already stay as they are.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file, which is made if it is missing.
        file: written by `export_runs`.
        key: signs the ledger entries; default: see `cascade.trace.read_key`.

    Raises:
        TraceError: a part of the file is not a run, or a different run with the same id is stored. What comes
            before it in the file has been stored; importing again continues from there.
    """
    parsed = parse_url(url)
    key = key or read_key()
    read = read_parquet if _is_parquet(file) else read_jsonl
    if not file.is_file():
        raise TraceError(f"{file} is no file; give one that `cascade trace export` wrote")
    engine = open_engine(parsed, create=True)
    if engine is None:
        raise TraceError(f"trace database {display_url(parsed)} cannot be made; nothing was imported")
    total = Imported()
    try:
        for batch in _batches(read(file)):
            done = _import(engine, batch, key, display_url(parsed))
            total = Imported(
                runs=total.runs + done.runs,
                grades=total.grades + done.grades,
                present=total.present + done.present,
            )
    except SQLAlchemyError as error:
        raise trace_error(error, parsed) from error
    finally:
        engine.dispose()
    return total


def _is_parquet(file: Path) -> bool:
    if file.suffix not in (".jsonl", ".parquet"):
        raise TraceError(f"{file} ends in {file.suffix!r}; expected .jsonl or .parquet")
    return file.suffix == ".parquet"


def _stored(connection: Connection, where: RunFilter) -> Iterator[ArchivedRun]:
    """Yield the runs that match `where`, with their grades."""
    for batch in raw_batches(connection, select_raw(runs).where(*conditions(where))):
        query = select(grades).where(grades.c.run.in_([row["run"] for row in batch])).order_by(grades.c.seq)
        by_run: dict[str, list[Grade]] = {}
        for row in connection.execute(query).mappings():
            grade = Grade(**{name: row[name] for name in Grade.model_fields})
            by_run.setdefault(grade.run, []).append(grade)
        for rows in raw_rows(connection, batch):
            yield ArchivedRun(rows, tuple(by_run.get(rows.run["run"], ())))


def _import(engine: Engine, batch: list[ArchivedRun], key: bytes | None, location: str) -> Imported:
    """Store the new runs and grades of a batch in one transaction."""
    postgres = engine.dialect.name == "postgresql"
    with engine.begin() as connection:
        lock_ledger(connection)
        known = _hashes(connection, [archived.rows.run["run"] for archived in batch])
        new: list[RunRows] = []
        for archived in batch:
            rows = archived.rows.without_nul() if postgres else archived.rows
            name, digest = rows.run["run"], hash_run(rows)
            if name not in known:
                known[name] = digest
                new.append(rows)
            elif known[name] != digest:
                raise TraceError(
                    f"run {name!r} of the file is another than the run {name!r} in {location}; it was left "
                    "as it is; import the file into another --trace-db"
                )
        insert_runs(connection, new, key)
        added = _new_grades(connection, [grade for archived in batch for grade in archived.grades])
        insert_grades(connection, added, key)
    return Imported(runs=len(new), grades=len(added), present=len(batch) - len(new))


def _hashes(connection: Connection, names: list[str]) -> dict[str, bytes]:
    """Return the hash in the ledger of each of these runs that is stored."""
    query = select(runs.c.run, ledger.c.body).join(ledger, ledger.c.seq == runs.c.seq)
    return {row.run: bytes(row.body) for row in connection.execute(query.where(runs.c.run.in_(names)))}


def _new_grades(connection: Connection, archived: list[Grade]) -> list[Grade]:
    """Return the grades that are not stored yet."""
    columns = [grades.c[name] for name in Grade.model_fields]
    query = select(*columns).where(grades.c.run.in_({grade.run for grade in archived}))
    known = Counter(Grade(**row) for row in connection.execute(query).mappings())
    new = []
    for grade in archived:
        if known[grade]:
            known[grade] -= 1
        else:
            new.append(grade)
    return new


def _batches(items: Iterator[ArchivedRun]) -> Iterator[list[ArchivedRun]]:
    while batch := list(islice(items, _BATCH)):
        yield batch
