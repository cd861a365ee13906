"""Reading request rows from JSONL or CSV, and writing result rows."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cascade.errors import RequestError
from cascade.records import Result, check_text


class Row(NamedTuple):
    """One request of a batch; `label` is the right answer, where it is known."""

    id: str
    text: str
    label: str | None = None


def read_rows(source: str) -> list[Row]:
    """Read every row of `source`: a .jsonl or .csv file, or `-` for JSONL on standard input.

    Raises:
        RequestError: rows that cannot be asked, all at once, each with file and line; nothing has run then.
    """
    name = "standard input" if source == "-" else source
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise RequestError(f"{name}: {error.strerror}; give a .jsonl or .csv file, or - for stdin") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(f"{name}:{line}: not valid UTF-8; save the file as UTF-8") from None
    parse = _csv if source.endswith(".csv") else _jsonl
    rows: list[Row] = []
    problems: list[str] = []
    ids: set[str] = set()
    for line, fields in parse(text):
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


def _jsonl(text: str) -> Iterator[tuple[int, Any]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
                yield line, RequestError(f"not JSON ({error}); expected one object a line")


def _csv(text: str) -> Iterator[tuple[int, Any]]:
    # How long a text may be is for `check_text` to say. The limit is the process's: never lower it.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if "text" not in (reader.fieldnames or []):
            yield 1, RequestError(f"columns are {reader.fieldnames}; expected at least 'text'")
            return
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if value not in (None, "")}
    except csv.Error as error:
        line = reader.reader.line_num  # that of the reader inside is the one where it stopped
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


def result_row(row: Row, result: Result) -> dict[str, Any]:
    """Return the output row of one result."""
    return {
        "id": row.id,
        "status": result.status,
        "text": result.text,
        "confidence": result.confidence,
        "calibrated": result.calibrated,
        "stage": result.stage,
        "model": result.model,
        "tier": result.tier,
        "rule": result.rule,
        "cost_usd": result.cost_usd,
        "seconds": result.seconds,
        "run": result.run,
    }
