"""The labelled rows of a user's file: its columns found, every row read or refused by its line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from cascade.errors import RequestError
from cascade.lab.reading.columns import Columns, find_columns, looks_headerless, shown
from cascade.lab.reading.files import read_row_file, without_header
from cascade.lab.reading.label_checks import MIN_ROWS, as_label, label_problem
from cascade.lab.tables.cells import ShortRowError, Table, refuse
from cascade.lab.tables.rows import LabelledRow
from cascade.records import check_text

_SAMPLE = 2000  # rows that columns are guessed from


class Place(NamedTuple):
    """Where a row stands, and what else it says.

    Attributes:
        line: its first line in the file; of Parquet and of a list in JSON its number, from 1.
        slice: its value in the slice column.
        group: its value in the group column.
        source: who made its label, if several sources did.
        time: when it came, UTC in ISO 8601, if rows are split by time.
        asked: whether it was picked for a person to label, so that it stands for no others.
    """

    line: int
    slice: str | None = None
    group: str | None = None
    source: str | None = None
    time: str | None = None
    asked: bool = False


class RowOptions(NamedTuple):
    """What a user tells about their rows.

    Attributes:
        slice: a column by whose values figures are reported as well.
        group: a column whose values (a document, a customer) keep rows on one side of a split.
        encoding: the file's, if a guess is wrong.
        separator: between the cells of CSV, if a guess is wrong.
        min_rows: rows that each label needs.
        drop_rare: leave labels with fewer rows out, instead of refusing.
        merge_labels: take labels that differ only in case or spaces for one.
    """

    slice: str | None = None
    group: str | None = None
    encoding: str | None = None
    separator: str | None = None
    min_rows: int = MIN_ROWS
    drop_rare: bool = False
    merge_labels: bool = False


@dataclass
class ReadRows:
    """What was read of a file, or comes from elsewhere.

    Attributes:
        columns: which columns were read.
        rows: the rows with a text and a label.
        places: each row's place.
        empty: rows without a text.
        unlabelled: texts without a label.
        sha256: of the file, in hexadecimal.
        form: format, separator and encoding in words.
        remarks: what was guessed.
        unit: what a row's id names: a line, or a run.
        teacher_graded: graded runs in which the teacher was right, and those that tell whether it was.
    """

    columns: Columns
    rows: list[LabelledRow] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    empty: int = 0
    unlabelled: list[str] = field(default_factory=list)
    sha256: str = ""
    form: str = ""
    remarks: tuple[str, ...] = ()
    unit: str = "line"
    teacher_graded: tuple[int, int] = (0, 0)


def read_labelled(path: str | Path, text: str | None, label: str | None, told: RowOptions) -> ReadRows:
    """Read the labelled rows of a file; `text` and `label` are the told columns, None: guessed.

    Raises:
        RequestError: the file cannot be read, a column cannot be found, or rows are broken (all are listed).
    """
    name = str(path)
    file = read_row_file(path, told.encoding, told.separator)
    table, sample = _opened(name, file.table, (text, label, told.slice, told.group))
    where = name if table.columns is None else f"{name}:{table.line}"
    cells = [cells for _, cells in sample if isinstance(cells, Mapping)]
    keys = chain.from_iterable(cells) if table.columns is None else table.columns
    names = list(dict.fromkeys(keys))
    columns = find_columns(where, cells, names, text, label)
    for option, column in (("--slice", told.slice), ("--group", told.group)):
        if column is not None and column not in names:
            raise RequestError(
                f"{where}: no column {column!r}, which {option} names; columns are {shown(names)}"
            )
    remarks = (*file.remarks, *columns.remarks)
    read = ReadRows(columns, sha256=file.sha256, form=file.form, remarks=remarks)
    _read_into(read, name, chain(sample, table.rows), told)
    return read


def _opened(name: str, table: Table, told: Sequence[str | None]) -> tuple[Table, list[tuple[int, Any]]]:
    """Return the table and its first rows; a first line that is no header becomes the first row.

    Raises:
        RequestError: the file as a whole cannot be read.
    """
    sample = list(islice(table.rows, _SAMPLE))
    known = [cells for _, cells in sample if isinstance(cells, Mapping)]
    if table.columns is not None and looks_headerless(table.columns, known, told):
        table = without_header(table, sample)
        sample = list(islice(table.rows, _SAMPLE))
    if 2 * len(known) < len(sample) or not known:  # no guess of columns is worth more than saying that
        refuse([f"{name}:{line}: {cells}" for line, cells in sample if isinstance(cells, RequestError)])
        raise RequestError(
            f"{name}: no rows; expected a text and a label a row, in CSV, TSV, JSONL or Parquet"
        )
    return table, sample


def _read_into(read: ReadRows, name: str, rows: Iterable[tuple[int, Any]], told: RowOptions) -> None:
    problems = []
    for line, cells in rows:
        try:
            _read_row(read, line, cells, told)
        except RequestError as error:
            problems.append(f"{name}:{line}: {error}")
    refuse(problems)


def _read_row(read: ReadRows, line: int, cells: Any, told: RowOptions) -> None:
    columns = read.columns
    if isinstance(cells, ShortRowError) and not {*columns[:2], told.slice, told.group} & set(cells.missing):
        cells = cells.cells  # Excel leaves empty cells at the end out; these columns are not read
    if isinstance(cells, RequestError):
        raise cells
    if not isinstance(cells, Mapping):
        raise RequestError(f"expected an object with {columns.text!r}, got {type(cells).__name__}")
    text, label = cells.get(columns.text), as_label(cells.get(columns.label))
    if text is None or (isinstance(text, str) and not text.strip()):
        read.empty += 1
        return
    check_text(text)
    if label is None or (isinstance(label, str) and not label.strip()):
        read.unlabelled.append(text)
        return
    if (problem := label_problem(label, columns.label)) is not None:
        raise RequestError(problem)
    read.rows.append(LabelledRow(str(line), text, str(label)))
    read.places.append(Place(line, _cell(cells, told.slice), _cell(cells, told.group)))


def _cell(cells: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else cells.get(column)
    return None if value is None else str(value)
