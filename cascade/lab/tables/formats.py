"""Rows of an outcome table as JSONL, CSV, .tsv or Parquet: read into nested objects, and written from them.

CSV and Parquet hold one column per value: `id`, `prompt`, `label`, any fields, and for each model
`NAME.correct` or `NAME.quality`, `NAME.cost_usd`, `NAME.seconds`, `NAME.text`, `NAME.confidence`,
`NAME.signals.SIGNAL`, `NAME.truncated`, and `NAME.error` for a call that failed. An empty cell is an absent
value. Parquet may also hold `models` as a nested column, as JSONL does.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascade.errors import RequestError
from cascade.lab.tables.cells import SEPARATORS, SUFFIXES, load_pyarrow, parse_table

_VALUE = re.compile(r"(.+)\.(correct|quality|cost_usd|seconds|text|confidence|truncated|error)", re.DOTALL)
_SIGNAL = re.compile(r"(.+)\.signals\.(.+)", re.DOTALL)
_NUMBERS = ("correct", "quality", "cost_usd", "seconds", "confidence", "truncated")


def parse_file(path: Path, data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (line, row) of a file's bytes; in place of a row that cannot be read, yield its error.

    Lines count from 1. For Parquet, which has no lines, rows are counted.

    Raises:
        RequestError: the file as a whole cannot be read.
    """
    suffix = _suffix(path)
    table = parse_table(str(path), data, _refuse_constant)
    if table.columns is None:
        return table.rows
    problem = _no_table(table.columns) or _unknown_column(table.columns)
    if problem:
        return iter([(table.line, RequestError(problem))])
    return _nested(table.rows, numbers=suffix != ".parquet")


def _nested(rows: Iterable[tuple[int, Any]], *, numbers: bool) -> Iterator[tuple[int, Any]]:
    for line, cells in rows:
        try:
            yield line, cells if isinstance(cells, RequestError) else _nest(_dense(cells), numbers=numbers)
        except ValueError as error:
            yield line, RequestError(str(error))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number; leave out what was not measured")


def _suffix(path: Path) -> str:
    """Return the suffix, in lower case, that tells the format.

    Raises:
        RequestError: it is unknown.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RequestError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    return suffix


def format_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return `rows` as the bytes of a file; the suffix of `path` sets the format.

    Raises:
        RequestError: the suffix is unknown, pyarrow is not installed, or the format cannot hold a row.
    """
    suffix = _suffix(path)
    if suffix == ".jsonl":
        return "".join(map(json_line, rows)).encode()
    try:
        flat = [_flatten(row) for row in rows]
        names = _header(flat)
        return _parquet(path, flat, names) if suffix == ".parquet" else _csv(flat, names, suffix)
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 20) : error.end]
        raise RequestError(f"{path}: {text!r} is not valid Unicode, which only .jsonl can hold") from None
    except ValueError as error:
        raise RequestError(f"{path}: {error}; write it as .jsonl") from None


def _header(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all columns.

    Raises:
        ValueError: they could not be read again.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    problem = _unknown_column(names)
    if problem:
        raise ValueError(problem)
    return names


def _csv(rows: Iterable[Mapping[str, Any]], names: Sequence[str], suffix: str) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, names, delimiter=SEPARATORS[suffix])
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def _parquet(path: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    arrow, parquet = load_pyarrow(str(path))
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({name: [row.get(name) for row in rows] for name in names}), buffer)
    return buffer.getvalue()


def json_line(row: Mapping[str, Any]) -> str:
    """Return one line of JSON."""
    # A model may answer a lone surrogate, which UTF-8 cannot encode: escape such a line.
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return (text if _encodable(text) else json.dumps(row, allow_nan=False)) + "\n"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_table(header: Sequence[str]) -> str | None:
    """Return why columns are those of requests rather than of outcomes, or None."""
    if any(len(_place(name)) > 1 for name in header) or "models" in header:
        return None
    if not header or ("id" in header and "text" not in header):
        return None  # a table in which no model was asked
    return (
        f"columns are {list(header)}; an outcome table has id, NAME.correct and NAME.cost_usd of models; "
        "'cascade outcomes GRAPH --data FILE' makes one of labelled rows"
    )


def _unknown_column(header: Sequence[str]) -> str | None:
    models = {match[1] for name in header if (match := _VALUE.fullmatch(name))}
    for name in header:
        owner = next((model for model in models if name.startswith(f"{model}.")), None)
        if owner is not None and not _VALUE.fullmatch(name) and not _SIGNAL.fullmatch(name):
            known = ", ".join((*_NUMBERS, "text", "error", "signals.NAME"))
            return f"unknown column {name!r} of model {owner!r}; known: {known}"
    return None


def _nest(cells: Mapping[str, Any], *, numbers: bool) -> dict[str, Any]:
    """Turn one row of columns into a nested row. With `numbers`, parse the figures, which are text.

    Raises:
        ValueError: a figure is not a number.
    """
    row: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    failed: dict[str, dict[str, Any]] = {}
    for name, cell in cells.items():
        model, *keys = _place(name)
        if not keys:
            row[name] = cell
        elif keys[0] == "signals":
            signals = models.setdefault(model, {}).setdefault("signals", {})
            signals[keys[1]] = _number(name, cell) if numbers else cell
        else:
            figure = numbers and keys[0] in _NUMBERS
            models.setdefault(model, {})[keys[0]] = _number(name, cell) if figure else cell
    for name in [name for name, entry in models.items() if "error" in entry]:
        failed[name] = models.pop(name)
    row.setdefault("models", models)
    return row | ({"failed": failed} if failed else {})


def _number(name: str, cell: str) -> float:
    if cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{name} is {cell!r}; expected a number, or an empty cell") from None


def _flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a nested row.

    Raises:
        ValueError: a name would be read as that of another value.
    """
    values: dict[tuple[str, ...], Any] = {
        (name,): value for name, value in row.items() if name not in ("models", "failed")
    }
    for name, entry in (*row.get("models", {}).items(), *row.get("failed", {}).items()):
        values |= {(name, key): value for key, value in entry.items() if key != "signals"}
        values |= {(name, "signals", key): value for key, value in entry.get("signals", {}).items()}
    flat = {}
    for place, value in values.items():
        column = ".".join(place)
        if _place(column) != place or not column.strip() or "\0" in column or column[0] == "\ufeff":
            raise ValueError(f"a column {column!r} would not be read as {' → '.join(place)!r}")
        flat[column] = value
    return flat


def _place(column: str) -> tuple[str, ...]:
    """Return where a column's value belongs: (field,), (model, key) or (model, "signals", name)."""
    if signal := _SIGNAL.fullmatch(column):
        return signal[1], "signals", signal[2]
    value = _VALUE.fullmatch(column)
    return (value[1], value[2]) if value else (column,)


def _dense(value: Any) -> Any:
    """Drop nulls, because Parquet has every column in every row."""
    if isinstance(value, dict):
        kept = {name: _dense(item) for name, item in value.items() if item is not None}
        return {name: item for name, item in kept.items() if item != {} or name == "models"}
    return value
