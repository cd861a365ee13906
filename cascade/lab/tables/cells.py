"""Files of rows, read into (line, {name: value}): JSONL, CSV, tab-separated text and Parquet.

Every command and function that takes rows reads them here. A file is read as it is meant, or refused with its
line: no cell is ever moved into another column.

- Text is UTF-8, or UTF-16 or UTF-32 with a byte-order mark. Lines end in LF, CRLF or CR.
- CSV is that of RFC 4180, separated by commas, or by what a first line `sep=;` says (Excel's own way). The
  same with tabs is a .tsv file. An empty cell is an absent value.
- Each row has as many cells as the header. Empty cells and columns at the end, and rows of empty cells, are
  what spreadsheets leave behind, and are skipped. A first column without a name is an index, and left out.
- JSONL is one JSON object a line. No key stands twice in it.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cascade.errors import RequestError
from cascade.extras import missing_package

MAX_PROBLEMS = 100  # of one file in a message; the rest are counted
SUFFIXES = (".jsonl", ".csv", ".parquet", ".tsv")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
_LINE_END = re.compile(r"\r\n|\n|\r")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_SAID = re.compile(r"sep=([^\r\n])[\r\n]")
_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_NO_TEXT = (
    (b"PK\x03\x04", "a spreadsheet or an archive; save it as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet; save it as CSV (UTF-8)"),
    (b"\x1f\x8b", "compressed; unpack it"),
)

Cells = Any
"""A row as a mapping, or the `RequestError` that says why it cannot be read; JSON may hold another value."""


class ShortRowError(RequestError):
    """A row of CSV with fewer cells than the header: those that it has, and the columns without one."""

    def __init__(self, message: str, cells: dict[str, str], missing: Sequence[str]) -> None:
        super().__init__(message)
        self.cells = cells
        self.missing = missing


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
        columns: the names in the header; None where each row has keys of its own (JSONL).
        rows: each row with its first line, from 1; of Parquet, which has no lines, its number.
        line: where the header stands.
    """

    columns: list[str] | None
    rows: Iterator[tuple[int, Cells]]
    line: int = 1


def read_file(path: str | Path, expected: str) -> bytes:
    """Return a file's bytes; `expected` tells in the error what to give instead.

    Raises:
        RequestError: the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise RequestError(f"{path}: {getattr(error, 'strerror', error)}; give {expected}") from None


def parse_table(name: str, data: bytes, constant: Callable[[str], object] = float) -> Table:
    """Return the rows in `data`, whose format the suffix of `name` tells; without a known one it is JSONL.

    Args:
        name: the file's name, also for messages.
        data: its bytes.
        constant: what becomes of NaN and Infinity in JSON; a `ValueError` refuses the row.

    Raises:
        RequestError: the file as a whole cannot be read.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".parquet":
        return parquet_table(name, data)
    text = decode_text(name, data)
    if suffix in SEPARATORS:
        return csv_table(text, SEPARATORS[suffix])
    return jsonl_table(text, constant)


def decode_text(name: str, data: bytes) -> str:
    """Decode UTF-8, or UTF-16 or UTF-32 by its byte-order mark; `name` stands for the file in messages.

    Raises:
        RequestError: the bytes are not text in one of these.
    """
    check_is_text(name, data)
    encoding = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:2]:
        raise RequestError(f"{name}:1: UTF-16 without a byte-order mark; save the file as UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(
            encoding, "ignore"
        )  # `start` does not count a mark of UTF-8
        line = len(_LINE_END.findall(before)) + 1
        kind = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
        raise RequestError(f"{name}:{line}: not valid {kind}; save the file as UTF-8") from None


def check_is_text(name: str, data: bytes) -> None:
    """Refuse what begins as an archive, a spreadsheet or something compressed does.

    Raises:
        RequestError: it does.
    """
    for beginning, what in _NO_TEXT:
        if data.startswith(beginning):
            raise RequestError(f"{name}:1: not a text file but {what}")


def refuse(problems: Sequence[str]) -> None:
    """Raise all `problems` as one error; of very many, the first.

    Raises:
        RequestError: there is one.
    """
    if problems:
        more = [f"… and {len(problems) - MAX_PROBLEMS} more problems"] if len(problems) > MAX_PROBLEMS else []
        raise RequestError("\n".join([*problems[:MAX_PROBLEMS], *more]))


def load_pyarrow(name: str) -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet; `name` is the file that needs them.

    Raises:
        RequestError: they are not installed.
    """
    try:  # imported by name, because type checkers cannot see an optional package
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        text = missing_package("Parquet", error, "parquet")
        raise RequestError(f"{name}: {text}, or use .jsonl") from error


def header_problem(names: Sequence[str]) -> str | None:
    """Return what is wrong with the names of columns, or None."""
    twice = sorted({name for name in names if name.strip() and names.count(name) > 1})
    if twice:
        return f"columns {', '.join(twice)} stand twice; keep one of each"
    return None


def jsonl_table(text: str, constant: Callable[[str], object] = float) -> Table:
    """Return the rows of JSONL; `constant` is as in `parse_table`."""
    return Table(None, _jsonl(text, constant))


def _jsonl(text: str, constant: Callable[[str], object]) -> Iterator[tuple[int, Cells]]:
    decoder = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=constant)
    wanted = f"expected one object a line{_not_jsonl(text.lstrip())}"
    for line, content in enumerate(_lines(text), start=1):
        if not content.strip():
            continue
        try:
            row = decoder.decode(content.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            yield line, RequestError(f"not JSON ({error.msg}, column {error.colno}); {wanted}")
            if wanted != "expected one object a line":  # the whole file is of another kind
                return
        except RecursionError:
            yield line, RequestError("not JSON (too deep: not usable JSON); expected one object a line")
        except ValueError as error:  # also a number of 5,000 digits
            yield line, RequestError(f"not JSON ({error}); expected one object a line")
        else:
            yield line, row


def _not_jsonl(text: str) -> str:
    """Return what a text seems to be that does not begin as JSONL does; '' if it does."""
    first = _LINE_END.split(text, maxsplit=1)[0].rstrip()
    if first.startswith("["):
        return ", not a list of all"
    if first == "{":
        return ", all of it on that line"
    return "" if first.startswith("{") else "; a file of CSV needs a name that ends in .csv or .tsv"


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text, each with its end, without a copy of the whole."""
    return (line.group() for line in _LINE.finditer(text))


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON from its pairs.

    Raises:
        ValueError: a key stands twice in it.
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in row if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice in one object; keep one")
    return row


def csv_table(text: str, separator: str) -> Table:
    """Return the rows of CSV with cells between `separator`, or what its first line says (`sep=;`)."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the process's limit: never lower it
    lines = csv_lines(text, separator)
    for line, header in lines:
        if isinstance(header, RequestError):
            return Table([], iter([(line, header)]))
        while header and not header[-1].strip():
            header.pop()
        if header:
            problem = header_problem(header) or _unnamed(header)
            error = iter([(line, RequestError(problem or ""))])
            return Table(header, error if problem else _rows(header, lines), line)
    return Table([], iter(()))


def _unnamed(header: Sequence[str]) -> str | None:
    """Return which column has no name; the first may have none."""
    blank = next((number for number, name in enumerate(header[1:], start=2) if not name.strip()), None)
    return None if blank is None else f"column {blank} has no name; give it one, or remove it"


def said_separator(text: str) -> str | None:
    """Return what the first line of CSV says that separates its cells (`sep=;`); None if it does not."""
    said = _SAID.match(text)
    return said.group(1) if said else None


def csv_lines(text: str, separator: str) -> Iterator[tuple[int, list[str] | RequestError]]:
    """Yield the cells of each row with the number of its first line; an error is the last one."""
    lines, skipped = _lines(text), 0
    if said := said_separator(text):
        separator, skipped = said, 1
        next(lines)
    try:
        reader = csv.reader(lines, delimiter=separator, strict=True)
    except (TypeError, ValueError):
        yield 1, RequestError(f"sep={separator!r} cannot separate cells; use sep=;")
        return
    while True:
        line = skipped + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, RequestError(f"not CSV ({error}); close every quote, and double quotes in a text")
            return
        if cells is None:
            return
        yield line, cells


def _rows(header: list[str], lines: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Cells]]:
    for line, cells in lines:
        if isinstance(cells, RequestError):
            yield line, cells
            continue
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        if _is_blank(cells, len(header)):
            continue
        row = {name: cell for name, cell in zip(header, cells, strict=False) if name.strip() and cell}
        problem = f"{len(cells)} cells, the header has {len(header)}; quote a text that holds a"
        if len(cells) > len(header):
            yield line, RequestError(f"{problem} separator")
        elif len(cells) < len(header):
            yield line, ShortRowError(f"{problem} line break", row, header[len(cells) :])
        else:
            yield line, row


def _is_blank(cells: Sequence[str], columns: int) -> bool:
    """Return whether a row holds nothing. In a single column, `""` is an empty text."""
    if len(cells) == 1:
        return columns > 1 and not cells[0].strip()
    return not any(cells)


def parquet_table(name: str, data: bytes) -> Table:
    """Return the rows of a Parquet file.

    Raises:
        RequestError: pyarrow is not installed, it is no such file, or two columns have one name.
    """
    arrow, parquet = load_pyarrow(name)
    try:
        table = parquet.read_table(arrow.BufferReader(data))
    except (arrow.ArrowException, OSError) as error:
        raise RequestError(f"{name}: not a Parquet file: {error}") from error
    problem = header_problem(table.column_names)
    if problem:
        raise RequestError(f"{name}: {problem}")
    rows = (row for batch in table.to_batches() for row in batch.to_pylist())
    kept = ({key: cell for key, cell in row.items() if cell is not None and cell != ""} for row in rows)
    return Table(list(table.column_names), enumerate(kept, start=1))
