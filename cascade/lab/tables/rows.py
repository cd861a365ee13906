"""Rows of requests, with or without labels, read from a file of any format that `cells` knows."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cascade.errors import RequestError
from cascade.lab.tables.cells import ShortRowError, parse_table, read_file, refuse
from cascade.records import check_text

KINDS = "a .jsonl, .csv, .tsv or .parquet file, or - for JSONL on standard input"


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


class Columns(NamedTuple):
    """The columns, or JSON keys, that hold each row's id, text and label."""

    id: str
    text: str
    label: str


def read_rows(source: str | Path, text: str | None = None, label: str | None = None) -> list[Row]:
    """Read every row of `source`, a file or `-` for JSONL on standard input; see `cells` for the formats.

    Args:
        source: the file.
        text: the column of the requests; default: `text`, in upper or lower case.
        label: the column of the right answers; default: `label`, if there is one.

    Raises:
        RequestError: rows are invalid; the message lists all of them, each with file and line.
    """
    name = rows_name(source)
    data = sys.stdin.buffer.read() if source == "-" else read_file(source, KINDS)
    table = parse_table(name, data)
    columns = _columns(f"{name}:{table.line}", table.columns, text, label)
    rows: list[Row] = []
    problems: list[str] = []
    ids: set[str] = set()
    for line, cells in table.rows:
        try:
            row = _row(line, cells, columns, ids)
        except RequestError as error:
            problems.append(f"{name}:{line}: {error}")
        else:
            ids.add(row.id)
            rows.append(row)
    refuse(problems)
    if not rows:
        expected = 'lines like {"id": "1", "text": "…"}' if table.columns is None else "some below the header"
        raise RequestError(f"{name}: no rows; expected {expected}")
    if label is not None and not any(row.label for row in rows):
        raise RequestError(f"{name}: no row has a {label!r}; give --label another column")
    return rows


def _columns(where: str, header: list[str] | None, text: str | None, label: str | None) -> Columns:
    """Return which columns are meant.

    Raises:
        RequestError: the header lacks one.
    """
    if text is not None and text == label:
        raise RequestError(f"--text and --label both name {text!r}; the label is the right answer")
    if header is None:
        return Columns("id", text or "text", label or "label")
    shown = f"{where}: columns are {header or None}"
    for option, wanted in (("--text", text), ("--label", label)):
        if wanted is not None and wanted not in header:
            raise RequestError(f"{shown}; expected {wanted!r}, which {option} names")
    found = Columns(_guess(header, "id"), text or _guess(header, "text"), label or _guess(header, "label"))
    if found.text not in header:
        raise RequestError(f"{shown}; expected at least 'text'; {_advice(header)}")
    return found


def _guess(header: list[str], name: str) -> str:
    """Return the column called `name`, whatever its case and the spaces around it."""
    near = [column for column in header if column.strip().casefold() == name]
    return near[0] if len(near) == 1 else name


def _advice(header: list[str]) -> str:
    if not header:
        return "the file is empty"
    separator = next((mark for mark in (";", "\t", "|") if mark in header[0]), None)
    if len(header) > 1 or separator is None:
        return "--text COL names the column of the requests, --label COL that of the right answers"
    if separator == "\t":
        return "its cells are separated by tabs: give the file a name that ends in .tsv"
    return f"its cells are separated by {separator!r}: save it with commas, or begin it with sep={separator}"


def labelled_rows(
    data: str | Path | Iterable[LabelledRow], text: str | None = None, label: str | None = None
) -> list[LabelledRow]:
    """Return the rows of a file (see `read_rows`), or `data` itself as a list.

    Raises:
        RequestError: rows are invalid, or one has no label.
    """
    if not isinstance(data, str | Path):
        return list(data)
    rows = read_rows(data, text, label)
    labelled = [LabelledRow(row.id, row.text, row.label) for row in rows if row.label]
    if len(labelled) < len(rows):
        unlabelled = next(row.id for row in rows if not row.label)
        raise RequestError(
            f"{data}: row {unlabelled!r} has no {label or 'label'!r}; every row needs the right answer; "
            "--label COL names another column"
        )
    return labelled


def rows_name(data: object) -> str:
    """Return what to call rows in a message: their file, if they are from one."""
    if data == "-":
        return "standard input"
    return str(data) if isinstance(data, str | Path) else "rows"


def _row(line: int, cells: Any, columns: Columns, taken: Container[str]) -> Row:
    if isinstance(cells, ShortRowError) and not set(columns) & set(cells.missing):
        cells = cells.cells  # Excel leaves empty cells at the end out; these columns are not read
    if isinstance(cells, RequestError):
        raise cells
    if not isinstance(cells, Mapping):
        raise RequestError(f"expected an object with {columns.text!r}, got {type(cells).__name__}")
    if columns.text not in cells:
        known = ", ".join(map(str, cells)) or "none"
        raise RequestError(f"no {columns.text!r}; known keys here: {known}; --text COL names another")
    label = cells.get(columns.label)
    if label is not None and not isinstance(label, str):
        raise RequestError(f"{columns.label} is {label!r}; expected a string")
    name = cells.get(columns.id)
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise RequestError(f"{columns.id} is {name!r}; expected a string or a whole number")
    name = str(line if name is None else name)
    if name in taken:
        raise RequestError(f"id {name!r} is used twice; ids tell the output rows apart")
    for key, value in ((columns.id, name), (columns.label, label)):
        if value is not None and value.strip():
            _check(key, value)
    return Row(name, check_text(cells[columns.text]), label if label and label.strip() else None)


def _check(key: str, value: str) -> None:
    """Refuse an id or a label that could not be a text either."""
    try:
        check_text(value)
    except RequestError as error:
        raise RequestError(f"{key}: {error}") from None
