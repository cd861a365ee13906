"""Which columns of a user's file hold the texts and the labels: told, or guessed from names and content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cascade.errors import RequestError

# The first of these that a file has is meant.
TEXT_NAMES = (
    "text", "prompt", "question", "query", "utterance", "message", "sentence", "body",
    "content", "description", "input", "request", "document", "review", "comment", "tweet", "post",
    "payload", "narrative",
    "title", "subject",
)  # fmt: skip
LABEL_NAMES = (
    "label", "intent", "category", "class", "target", "topic", "tag", "queue", "department", "sentiment",
    "output", "answer", "rating", "stars", "priority", "severity", "emotion", "type",
)  # fmt: skip
ID_NAMES = re.compile(
    r"(.*[_\s-])?(id|uuid|guid|index|idx|key|no|nr|number|date|time|timestamp|url)|.*_at|created|updated"
)
NO_TEXT = re.compile(
    r"[\d\s.,:;/+%$€£#-]*"  # numbers, amounts, dates, telephone numbers
    r"|\d{4}-\d\d-\d\d[T ][\d:.]+Z?"
    r"|(?=.*\d)[0-9a-fA-F-]{8,}"  # UUIDs and other hashes
    r"|https?://\S+"
    r"|true|false|yes|no|null|none|nan",
    re.IGNORECASE,
)  # fmt: skip
_MOST = 0.95  # of the values: what is true of so many is true of the column
_SHOWN = 8  # columns in a message


class Columns(NamedTuple):
    """The columns that are read. `remarks` say which were guessed, and why."""

    text: str
    label: str
    remarks: tuple[str, ...] = ()


class _Column(NamedTuple):
    name: str
    values: list[str]

    @property
    def distinct(self) -> int:
        return len(set(self.values))

    @property
    def length(self) -> float:
        """The mean number of characters."""
        return sum(map(len, self.values)) / max(1, len(self.values))

    @property
    def words(self) -> float:
        """The mean number of words; in scripts without spaces five characters stand for one."""
        return sum(max(len(value.split()), _wide(value) / 5) for value in self.values) / max(
            1, len(self.values)
        )


def find_columns(
    where: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], text: str | None, label: str | None
) -> Columns:
    """Return which columns hold texts and labels.

    Args:
        where: the file, and the line of its header, for messages.
        rows: the first rows.
        names: all columns.
        text: what the user told.
        label: what the user told.

    Raises:
        RequestError: a told column is missing, or none is found, or several may be meant.
    """
    _check_told(where, names, text, label)
    columns = [_Column(name, _texts(rows, name)) for name in names if name.strip()]
    if len(columns) < 2:
        raise RequestError(
            f"{where}: {'one column, ' + repr(names[0]) if names else 'no columns'}; expected one of "
            "texts and one of labels, in CSV, TSV, JSONL or Parquet"
        )
    remarks: list[str] = []
    if text is None:
        text, why = _find_text(where, [column for column in columns if column.name != label])
        remarks.append(f"texts: column {text!r} ({why}; --text COL tells another)")
    if label is None:
        label, why = _find_label(where, [column for column in columns if column.name != text])
        remarks.append(f"labels: column {label!r} ({why}; --label COL tells another)")
    return Columns(text, label, tuple(remarks))


def is_no_text(values: Sequence[str]) -> bool:
    """Return whether the values of a column are numbers, dates, ids or addresses."""
    return bool(values) and sum(bool(NO_TEXT.fullmatch(value.strip())) for value in values) >= _MOST * len(
        values
    )


def _check_told(where: str, names: Sequence[str], text: str | None, label: str | None) -> None:
    if text is not None and text == label:
        raise RequestError(f"--text and --label both name {text!r}; the label is the right answer")
    for option, wanted in (("--text", text), ("--label", label)):
        if wanted is not None and wanted not in names:
            raise RequestError(
                f"{where}: no column {wanted!r}, which {option} names; columns are {shown(names)}"
            )


def shown(names: Sequence[str]) -> str:
    """Return names for a message, the first of very many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:60]) for name in names[:_SHOWN]) + more


def _texts(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    cells = (row.get(name) for row in rows)
    return [str(cell) for cell in cells if isinstance(cell, str | int | float) and str(cell).strip()]


def _wide(value: str) -> int:
    return sum(character >= "\u2e80" for character in value)


def _named(columns: Sequence[_Column], wanted: Sequence[str]) -> str | None:
    """Return the column with the first of the `wanted` names, whatever its case and the spaces around it."""
    by_name = {column.name.strip().casefold(): column.name for column in reversed(columns)}
    return next((by_name[name] for name in wanted if name in by_name), None)


def _find_text(where: str, columns: Sequence[_Column]) -> tuple[str, str]:
    usable = [column for column in columns if column.values and not is_no_text(column.values)]
    named = _named(usable, TEXT_NAMES)
    if named is not None:
        return named, "by its name"
    free = [column for column in usable if column.words >= 2 and 3 * column.distinct > len(column.values)]
    if not free:
        raise RequestError(
            f"{where}: no column of texts among {shown([column.name for column in columns])}; "
            "--text COL names it"
        )
    return max(free, key=lambda column: column.length).name, "the longest free text"


def _find_label(where: str, columns: Sequence[_Column]) -> tuple[str, str]:
    named = _named(columns, LABEL_NAMES)
    if named is not None:
        return named, "by its name"
    few = [column for column in columns if _is_label(column)]
    if len(few) == 1:
        return few[0].name, f"{few[0].distinct} values that repeat"
    if not few:
        raise RequestError(
            f"{where}: no column of labels, few values that repeat, among "
            f"{shown([column.name for column in columns])}; --label COL names it"
        )
    found = ", ".join(f"{column.name!r} ({column.distinct} values)" for column in few[:_SHOWN])
    raise RequestError(f"{where}: the labels may be in {found}; --label COL tells in which")


def _is_label(column: _Column) -> bool:
    """Return whether values repeat as labels do: at least two of them, and five rows a value on average."""
    values, distinct = column.values, column.distinct
    if ID_NAMES.fullmatch(column.name.strip().casefold()) or is_no_text(values):
        return False
    return 2 <= distinct <= len(values) / 2 and column.words <= 6


def looks_headerless(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], told: Sequence[str | None]
) -> bool:
    """Return whether a header is a row itself.

    It is if the user tells columns by number, or if one cell of it is a value that repeats in its column.
    Where columns have known names it is not: a text may hold the word `text`.
    """
    numbers = {str(number) for number in range(1, len(names) + 1)}
    if any(name in numbers and name not in names for name in told):
        return True
    known = {*TEXT_NAMES, *LABEL_NAMES}
    if not rows or any(
        name.strip().casefold() in known or ID_NAMES.fullmatch(name.casefold()) for name in names
    ):
        return False
    for name in names:
        values = _texts(rows, name)
        if values.count(name) >= 2 and 2 * len(set(values)) <= len(values):
            return True
    return False
