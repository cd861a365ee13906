"""Rows of requests, with or without labels, read from JSONL or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cascade.errors import RequestError
from cascade.lab.tables.formats import csv_source, decode_text
from cascade.records import check_text


class Row(NamedTuple):
    """One request of a batch. `label` is the right answer, if it is known."""

    id: str
    text: str
    label: str | None = None


class LabelledRow(NamedTuple):
    """One request with its right answer."""

    id: str
    text: str
    label: str


def read_rows(source: str | Path) -> list[Row]:
    """Read every row of `source`: a .jsonl or .csv file, or `-` for JSONL on standard input.

    Raises:
        RequestError: rows are invalid; the message lists all of them, each with file and line.
    """
    name = "standard input" if source == "-" else str(source)
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise RequestError(f"{name}: {error.strerror}; give a .jsonl or .csv file, or - for stdin") from None
    parse = _csv if name.endswith(".csv") else _jsonl
    rows: list[Row] = []
    problems: list[str] = []
    ids: set[str] = set()
    for line, fields in parse(decode_text(name, data)):
        try:
            row = _row(line, fields, ids)
        except RequestError as error:
            problems.append(f"{name}:{line}: {error}")
        else:
            ids.add(row.id)
            rows.append(row)
    if problems:
        raise RequestError("\n".join(problems))
    if not rows:
        raise RequestError(f'{name}: no rows; expected lines like {{"id": "1", "text": "…"}}')
    return rows


def labelled_rows(data: str | Path | Iterable[LabelledRow]) -> list[LabelledRow]:
    """Return the rows of a file (see `read_rows`), or `data` itself as a list.

    Raises:
        RequestError: rows are invalid, or one has no label.
    """
    if not isinstance(data, str | Path):
        return list(data)
    rows = read_rows(data)
    labelled = [LabelledRow(row.id, row.text, row.label) for row in rows if row.label and row.label.strip()]
    if len(labelled) < len(rows):
        unlabelled = next(row.id for row in rows if not row.label or not row.label.strip())
        raise RequestError(f"{data}: row {unlabelled!r} has no 'label'; every row needs the right answer")
    return labelled


def _jsonl(text: str) -> Iterator[tuple[int, Any]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
                yield line, RequestError(f"not JSON ({error}); expected one object a line")


def _csv(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(csv_source(text), strict=True)
    try:
        if "text" not in (reader.fieldnames or []):
            yield 1, RequestError(f"columns are {reader.fieldnames}; expected at least 'text'")
            return
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if value not in (None, "")}
    except csv.Error as error:
        line = reader.reader.line_num  # DictReader's own count is behind when the inner reader fails
        yield line, RequestError(f"not CSV ({error}); close every quote, and double quotes in a text")


def _row(line: int, fields: Any, taken: Container[str]) -> Row:
    if isinstance(fields, RequestError):
        raise fields
    if not isinstance(fields, dict):
        raise RequestError(f"expected an object with 'text', got {type(fields).__name__}")
    if "text" not in fields:
        raise RequestError(f"no 'text'; known keys here: {', '.join(map(str, fields)) or 'none'}")
    label = fields.get("label")
    if label is not None and not isinstance(label, str):
        raise RequestError(f"label is {label!r}; expected a string")
    name = fields.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise RequestError(f"id is {name!r}; expected a string or a whole number")
    name = str(line if name is None else name)
    if name in taken:
        raise RequestError(f"id {name!r} is used twice; ids tell the output rows apart")
    return Row(name, check_text(fields["text"]), label)
