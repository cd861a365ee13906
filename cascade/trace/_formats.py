"""File formats of exported runs.

JSON Lines: one line per run, with the fields of `Result` and its `grades`. Parquet: one row per run, with the
columns of the table `runs`, and lists of its rows in `steps`, `calls` and `grades`; JSON columns stay text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Double, Integer, Table

from cascade.errors import TraceError
from cascade.extras import missing_package
from cascade.records import Result
from cascade.trace._grades import Grade
from cascade.trace._plausible import implausible, implausible_time
from cascade.trace._rows import RunRows, to_rows
from cascade.trace._tables import calls, grades, runs, steps

# What a damaged file raises before or while it becomes records; pydantic's errors are ValueErrors.
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError)
_ROW_GROUP = 500  # runs in a row group of a Parquet file
_TABLES = {"steps": steps, "calls": calls, "grades": grades}


@dataclass(frozen=True, slots=True)
class ArchivedRun:
    """A run as the database holds it, and its grades, newest last."""

    rows: RunRows
    grades: tuple[Grade, ...] = ()


def write_jsonl(file: Path, archived: Iterable[ArchivedRun]) -> int:
    """Write runs as JSON Lines; return their number.

    Raises:
        TraceError: the rows of a run are no result that this version knows.
    """
    count = 0
    with file.open("w", encoding="utf-8") as out:
        for run in archived:
            line = _result(run.rows, "the database").model_dump()
            line["grades"] = [grade.model_dump(exclude={"run"}) for grade in run.grades]
            # Python's dialect of JSON, because a log-probability may be -Infinity.
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    return count


def read_jsonl(file: Path) -> Iterator[ArchivedRun]:
    """Yield the runs of a JSON Lines file.

    Raises:
        TraceError: a line is not a run; the message gives its number.
    """
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                fields = json.loads(line.decode())
                grades = fields.pop("grades", [])
                result = Result.model_validate(fields)
                found = tuple(Grade(run=result.run, **grade) for grade in grades)
                archived = ArchivedRun(to_rows(result), found)
            except _BROKEN as error:
                raise TraceError(f"{file}:{number}: this line is no run: {_brief(error)}") from error
            _check(f"{file}:{number}", result, found)
            yield archived


def write_parquet(file: Path, archived: Iterable[ArchivedRun]) -> int:
    """Write runs as Parquet; return their number.

    Raises:
        TraceError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    schema = _schema(arrow)
    count, items = 0, iter(archived)
    with parquet.ParquetWriter(file, schema, compression="zstd") as out:
        while group := list(islice(items, _ROW_GROUP)):
            rows = [
                one.rows.run
                | {"steps": one.rows.steps, "calls": one.rows.calls}
                | {"grades": [grade.model_dump() for grade in one.grades]}
                for one in group
            ]
            out.write_table(arrow.Table.from_pylist([_cast(row) for row in rows], schema=schema))
            count += len(group)
    return count


def read_parquet(file: Path) -> Iterator[ArchivedRun]:
    """Yield the runs of a Parquet file.

    Raises:
        TraceError: the file is not Parquet, a row is not a run, or pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(file) as source:
            for batch in source.iter_batches(_ROW_GROUP):
                for row in batch.to_pylist():
                    number += 1
                    yield _archived(row, f"{file}: row {number}")
    except (arrow.ArrowException, OSError, MemoryError, *_BROKEN) as error:
        raise TraceError(f"{file} cannot be read as Parquet: {_brief(error)}") from error


def _archived(row: dict[str, Any], location: str) -> ArchivedRun:
    try:
        inner = {name: row.pop(name) for name in _TABLES}
        rows = RunRows(row, inner["steps"], inner["calls"])
        grades = tuple(Grade.model_validate(grade) for grade in inner["grades"])
    except _BROKEN as error:
        raise TraceError(f"{location} is no run: {_brief(error)}") from error
    result = _result(rows, location)
    _check(location, result, grades)
    return ArchivedRun(to_rows(result), grades)


def _check(location: str, result: Result, grades: Iterable[Grade]) -> None:
    """Refuse numbers and times that no run can have.

    Raises:
        TraceError: there is one; the message says where.
    """
    wrong = implausible(result)
    if wrong is None:
        times = (f"grade.at is {found}" for grade in grades if (found := implausible_time(grade.at)))
        wrong = next(times, None)
    if wrong is not None:
        raise TraceError(
            f"{location}: run {result.run!r:.80} cannot be: {wrong}; correct it or remove the run"
        )


def _result(rows: RunRows, location: str) -> Result:
    try:
        return rows.result()
    except _BROKEN as error:
        raise TraceError(f"run {rows.run.get('run')!r} of {location} is damaged: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    return str(error).replace("\n", " ")[:300]


def _schema(arrow: Any) -> Any:
    inner = [
        (name, arrow.list_(arrow.struct([field for field in _fields(arrow, table) if field.name != "seq"])))
        for name, table in _TABLES.items()
    ]
    own = [field for field in _fields(arrow, runs) if field.name != "seq"]
    return arrow.schema([*own, *(arrow.field(name, kind) for name, kind in inner)])


def _fields(arrow: Any, table: Table) -> list[Any]:
    kinds = ((Boolean, arrow.bool_()), (Double, arrow.float64()), (Integer, arrow.int64()))
    return [
        arrow.field(
            item.name, next((kind for of, kind in kinds if isinstance(item.type, of)), arrow.string())
        )
        for item in table.c
    ]


_FLAGS = {
    item.name for table in (runs, *_TABLES.values()) for item in table.c if isinstance(item.type, Boolean)
}


def _cast(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with booleans instead of SQLite's 0 and 1."""
    cast: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            cast[name] = [_cast(item) for item in value]
        else:
            cast[name] = bool(value) if name in _FLAGS and value is not None else value
    return cast


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise TraceError(f"{missing_package('Parquet', error, 'parquet')}, or use .jsonl") from error
    return pa, parquet
