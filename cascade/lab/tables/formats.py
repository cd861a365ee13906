"""Rows of an outcome table as JSONL, CSV or Parquet, read into nested objects and written from them.

CSV and Parquet hold one column per value: `id`, `prompt`, `label`, any fields, and for each model
`NAME.correct` or `NAME.quality`, `NAME.cost_usd`, `NAME.seconds`, `NAME.text`, `NAME.confidence`,
`NAME.signals.SIGNAL`, and `NAME.error` for a call that failed. An empty cell is an absent value. Parquet may
also hold `models` as a nested column, as JSONL does.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cascade.errors import RequestError
from cascade.extras import missing_package

SUFFIXES = (".jsonl", ".csv", ".parquet")
_VALUE = re.compile(r"(.+)\.(correct|quality|cost_usd|seconds|text|confidence|error)", re.DOTALL)
_SIGNAL = re.compile(r"(.+)\.signals\.(.+)", re.DOTALL)
_NUMBERS = ("correct", "quality", "cost_usd", "seconds", "confidence")

Row = dict[str, Any] | RequestError


def read_file(path: Path, expected: str) -> bytes:
    """Return a file's bytes; `expected` tells in the error what to give instead.

    Raises:
        RequestError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}; give {expected}") from None


def decode_text(name: str, data: bytes) -> str:
    """Decode UTF-8, with or without a byte-order mark; `name` stands for the file in messages.

    Raises:
        RequestError: the bytes are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(f"{name}:{line}: not valid UTF-8; save the file as UTF-8") from None


def csv_source(text: str) -> io.StringIO:
    """Return `text` as the csv module reads it, and let a cell be as long as the whole text."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the process's limit: never lower it
    return io.StringIO(text, newline="")


def parse_file(path: Path, data: bytes) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) of a file's bytes; in place of a row that cannot be read, yield its error.

    Lines count from 1. For Parquet, which has no lines, rows are counted.

    Raises:
        RequestError: the file as a whole cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise RequestError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        return _parquet(path, data)
    text = decode_text(str(path), data)
    return _csv(text) if path.suffix == ".csv" else _jsonl(text)


def format_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return `rows` as the bytes of a file; the suffix of `path` sets the format.

    Raises:
        RequestError: the suffix is unknown, or pyarrow is not installed.
    """
    if path.suffix == ".jsonl":
        return "".join(map(json_line, rows)).encode()
    if path.suffix not in SUFFIXES:
        raise RequestError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    flat = [_flatten(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    if path.suffix == ".csv":
        sink = io.StringIO(newline="")
        writer = csv.DictWriter(sink, names)
        writer.writeheader()
        writer.writerows(flat)
        return sink.getvalue().encode()
    arrow, parquet = _pyarrow(path)
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({name: [row.get(name) for row in flat] for name in names}), buffer)
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


def _jsonl(text: str) -> Iterator[tuple[int, Row]]:
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = decoder.decode(content)
        except json.JSONDecodeError as error:
            yield (
                line,
                RequestError(f"not JSON ({error.msg}, column {error.colno}); expected one object"),
            )
        except (ValueError, RecursionError) as error:
            yield line, RequestError(f"not usable JSON: {error}")
        else:
            yield line, row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in row if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice in one object; keep one")
    return row


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number; leave out what was not measured")


def _csv(text: str) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(csv_source(text), strict=True)
    try:
        header = next(reader, [])
        problem = _header_problem(header)
        if problem:
            yield 1, RequestError(problem)
            return
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                yield reader.line_num, RequestError(f"{len(cells)} cells, the header has {len(header)}")
                continue
            try:
                yield reader.line_num, _nest(dict(zip(header, cells, strict=True)), numbers=True)
            except ValueError as error:
                yield reader.line_num, RequestError(str(error))
    except csv.Error as error:
        yield reader.line_num, RequestError(f"not CSV ({error})")


def _header_problem(header: Sequence[str]) -> str | None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        return f"columns {', '.join(twice)} stand twice; keep one of each"
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
        if cell is None or cell == "":
            continue
        if signal := _SIGNAL.fullmatch(name):
            value = _number(name, cell) if numbers else cell
            models.setdefault(signal[1], {}).setdefault("signals", {})[signal[2]] = value
        elif match := _VALUE.fullmatch(name):
            figure = numbers and match[2] in _NUMBERS
            models.setdefault(match[1], {})[match[2]] = _number(name, cell) if figure else cell
        else:
            row[name] = cell
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
    flat = {name: value for name, value in row.items() if name not in ("models", "failed")}
    for name, entry in (*row.get("models", {}).items(), *row.get("failed", {}).items()):
        flat |= {f"{name}.{key}": value for key, value in entry.items() if key != "signals"}
        flat |= {f"{name}.signals.{key}": value for key, value in entry.get("signals", {}).items()}
    return flat


def _parquet(path: Path, data: bytes) -> Iterator[tuple[int, Row]]:
    arrow, parquet = _pyarrow(path)
    try:
        table = parquet.read_table(arrow.BufferReader(data))
    except (arrow.ArrowException, OSError) as error:
        raise RequestError(f"{path}: not a Parquet file: {error}") from error
    problem = _header_problem(table.column_names)
    if problem:
        raise RequestError(f"{path}: {problem}")
    rows = (row for batch in table.to_batches() for row in batch.to_pylist())
    return ((number, _nest(_dense(row), numbers=False)) for number, row in enumerate(rows, start=1))


def _dense(value: Any) -> Any:
    """Drop nulls, because Parquet has every column in every row."""
    if isinstance(value, dict):
        kept = {name: _dense(item) for name, item in value.items() if item is not None}
        return {name: item for name, item in kept.items() if item != {} or name == "models"}
    return value


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:  # imported by name, because type checkers cannot see an optional package
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        text = missing_package("Parquet", error, "parquet")
        raise RequestError(f"{path}: {text}, or use .jsonl") from error
    return arrow, parquet
