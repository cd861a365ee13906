"""A user's file of rows, whatever program wrote it, read into (line, {column: value}).

CSV, TSV, JSONL and Parquet are read by `lab.tables.cells`; what that leaves to the user is guessed here where
that is safe, and said: the encoding, the separator, a missing header, the format of a file without a known
suffix. A file of JSON with a list of all rows is read too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from cascade.errors import RequestError
from cascade.lab.reading.encodings import decode
from cascade.lab.reading.separators import NAMES, find_separator
from cascade.lab.tables.cells import (
    SEPARATORS,
    Table,
    csv_table,
    jsonl_table,
    load_pyarrow,
    parquet_table,
    unique_keys,
)

MAX_BYTES = (
    200_000_000  # of a file; surveying one takes 7 times its size in memory, without Latin letters 9 times
)
KINDS = "a .csv, .tsv, .jsonl, .json or .parquet file"
_JSONL = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class RowFile:
    """The rows of a file and how it was read.

    Attributes:
        table: the rows.
        sha256: of the file's bytes, in hexadecimal.
        form: format, separator and encoding in words.
        remarks: what was guessed.
    """

    table: Table
    sha256: str
    form: str
    remarks: tuple[str, ...] = ()


def read_row_file(path: str | Path, encoding: str | None = None, separator: str | None = None) -> RowFile:
    """Read the file at `path`; `encoding` and `separator` are what the user told.

    Raises:
        RequestError: the file cannot be read, is too large, or is no file of rows.
    """
    name = str(path)
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise RequestError(f"--separator is {separator!r}; expected one character, ';' for instance")
    data = _read(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if Path(path).suffix.lower() == ".parquet" or data.startswith(b"PAR1"):
        _check_parquet(name, data)
        return RowFile(parquet_table(name, data), sha256, "Parquet")
    decoded = decode(name, data, encoding)
    del data
    remarks = (decoded.remark,) if decoded.remark else ()
    kind = _kind(name, decoded.text)
    if kind == "JSON":
        return RowFile(_json_table(name, decoded.text), sha256, f"JSON, {decoded.encoding}", remarks)
    if kind == "JSONL":
        return RowFile(jsonl_table(decoded.text), sha256, f"JSONL, {decoded.encoding}", remarks)
    mark = separator or ("\t" if kind == ".tsv" else find_separator(name, decoded.text))
    form = f"CSV, {NAMES.get(mark, repr(mark))}, {decoded.encoding}"
    return RowFile(csv_table(decoded.text, mark), sha256, form, remarks)


def _read(path: str | Path) -> bytes:
    """Return a file's bytes; of a pipe too, and never more than `MAX_BYTES`."""
    try:
        with Path(path).open("rb") as file:
            data = _read_open(path, file)
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise RequestError(f"{path}: {getattr(error, 'strerror', None) or error}; give {KINDS}") from None
    if not data[:1000].strip() and not data.strip():
        raise RequestError(f"{path}: the file is empty; give {KINDS} with a text and a label a row")
    return data


def _read_open(path: str | Path, file: BinaryIO) -> bytes:
    size = os.fstat(file.fileno()).st_size
    data = b"" if size > MAX_BYTES else file.read(MAX_BYTES + 1)
    if max(size, len(data)) > MAX_BYTES:
        found = f"has {size / 1e6:,.0f} MB" if size > MAX_BYTES else "is longer"
        raise RequestError(
            f"{path}: {found}; at most {MAX_BYTES / 1e6:.0f} MB are read, since more rows of the same labels "
            "teach little; give a random part of its rows, with the header: "
            "(head -n 1 FILE; tail -n +2 FILE | shuf -n 100000) > part.csv"
        )
    return data


def _check_parquet(name: str, data: bytes) -> None:
    """Refuse a Parquet file whose rows unpack to far more than the file holds."""
    arrow, parquet = load_pyarrow(name)
    try:
        metadata = parquet.ParquetFile(arrow.BufferReader(data)).metadata
        size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    except (arrow.ArrowException, OSError) as error:
        raise RequestError(f"{name}: not a Parquet file: {error}") from error
    if size > MAX_BYTES:
        raise RequestError(
            f"{name}: unpacks to {size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read; "
            "give a random part of its rows"
        )


def _kind(name: str, text: str) -> str:
    """Return JSON, JSONL, `.tsv` or `.csv`: by the suffix, or else by how the text begins."""
    suffix = Path(name).suffix.lower()
    begins = text[:1000].lstrip()[:1]
    if suffix == ".json" or suffix not in (*_JSONL, *SEPARATORS):
        return "JSON" if begins == "[" else "JSONL" if begins == "{" else ".csv"
    return "JSONL" if suffix in _JSONL else suffix if suffix == ".tsv" else ".csv"


def _json_table(name: str, text: str) -> Table:
    """Return the rows of one JSON list; each one's number stands for its line."""
    try:
        rows = json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        raise RequestError(f"{name}: not JSON (too deep); expected a list of objects") from None
    except ValueError as error:
        raise RequestError(f"{name}: not JSON ({error}); expected a list of objects") from None
    return Table(None, enumerate(rows, start=1))


def without_header(table: Table, sample: list[tuple[int, Any]]) -> Table:
    """Return the rows of a CSV file whose first line is a row already; its columns are called 1, 2 and so on.

    Args:
        table: the file, whose header is that line.
        sample: the rows that were already taken from `table.rows`.
    """
    header = table.columns or []
    names = {column: str(number) for number, column in enumerate(header, start=1)}

    def renamed() -> Iterator[tuple[int, Any]]:
        yield table.line, {names[column]: column for column in header if column.strip()}
        for line, cells in chain(sample, table.rows):
            known = isinstance(cells, dict)
            yield line, {names[name]: cell for name, cell in cells.items()} if known else cells

    return Table(list(names.values()), renamed(), table.line)
