"""Whether the labels of a user's rows can be learned: refused with what to do about it, or remarked on."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cascade.errors import RequestError

MIN_ROWS = 5  # of a label
MAX_LABELS = 2000
MAX_LENGTH = 200  # characters of a label
_SHOWN = 8
_FEW_ROWS = 2.0  # rows a label on average; with fewer the column holds ids, numbers or texts
_NUMBER = re.compile(r"[-+]?\d*[.,]?\d+([eE][-+]?\d+)?")
_FORBIDDEN = (
    "Cc",
    "Cs",
    "Zl",
    "Zp",
)  # control characters, lone surrogates, separators of lines and paragraphs
_SPACES = re.compile(r"\s+")


def label_problem(label: object, column: str) -> str | None:
    """Return why a cell can be no label; None if it can."""
    if not isinstance(label, str):
        return f"{column} is {str(label)[:60]!r}, a {type(label).__name__}; expected one label, as a string"
    bad = next((letter for letter in label if unicodedata.category(letter) in _FORBIDDEN), None)
    if bad is not None:
        what = "a line break" if bad in "\r\n\u2028\u2029" else f"the control character U+{ord(bad):04X}"
        return f"{column} holds {what}: {label[:60]!r}; a label is one line of plain text"
    if len(label) > MAX_LENGTH:
        return (
            f"{column} has {len(label)} characters: {label[:40]!r}…; a label has at most {MAX_LENGTH}; "
            "are --text and --label swapped?"
        )
    return None


def as_label(cell: object) -> object:
    """Return a cell as a label: whole numbers and truth values, as JSON and Parquet know them, as text."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # what a table with an empty cell makes of whole numbers
    return str(cell) if isinstance(cell, int) else cell


def rare_labels(counts: Mapping[str, int], least: int) -> dict[str, int]:
    """Return the labels with fewer than `least` rows, the rarest first."""
    rare = {label: count for label, count in counts.items() if count < least}
    return dict(sorted(rare.items(), key=lambda item: (item[1], item[0])))


def check_labels(source: str, counts: Mapping[str, int], column: str, least: int) -> None:
    """Refuse labels that nothing can be learned from.

    Args:
        source: the file, for messages.
        counts: rows a label.
        column: the labels' column, for messages.
        least: rows that every label needs.

    Raises:
        RequestError: there is one label, more than `MAX_LABELS`, or one too rare; or they look
            like ids or numbers.
    """
    where = f"{source}: the labels in {column!r}"
    rows = sum(counts.values())
    if not counts:
        raise RequestError(
            f"{source}: no row has a text and a label in {column!r}; --label COL names another column"
        )
    if len(counts) == 1:
        raise RequestError(
            f"{where} are all {next(iter(counts))!r}; learning needs at least two; --label COL names another "
            "column"
        )
    numbers = sum(bool(_NUMBER.fullmatch(label)) for label in counts)
    if len(counts) * _FEW_ROWS > rows and len(counts) > _SHOWN:
        kind = "numbers" if 2 * numbers > len(counts) else "ids or free texts"
        raise RequestError(
            f"{where} look like {kind}: {len(counts)} different ones in {rows} rows, for instance "
            f"{_listed(list(counts)[:3])}; --label COL names another column"
        )
    if (
        numbers == len(counts)
        and any("." in label or "," in label for label in counts)
        and len(counts) > _SHOWN
    ):
        raise RequestError(
            f"{where} look like measurements, for instance {_listed(list(counts)[:3])}; learning is for "
            "classes: put the numbers into a few named ranges first"
        )
    if len(counts) > MAX_LABELS:
        raise RequestError(
            f"{where} are {len(counts)} different ones; at most {MAX_LABELS} are learned; merge the rare "
            "ones, or learn the coarse label first and the finer ones in experts of their own"
        )
    rare = rare_labels(counts, least)
    if rare:
        raise RequestError(_rare(where, rare, counts, least))


def alike(labels: Iterable[str]) -> list[list[str]]:
    """Return the sets of labels that differ only in case or spaces."""
    sets: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        sets[_SPACES.sub("", unicodedata.normalize("NFKC", label)).casefold()].append(label)
    return [members for members in sets.values() if len(members) > 1]


def merged(counts: Counter[str]) -> dict[str, str]:
    """Return for every label that differs from another in case or spaces only the most frequent form."""
    names: dict[str, str] = {}
    for members in alike(counts):
        chosen = max(members, key=lambda label: (counts[label], label)).strip()
        names.update(dict.fromkeys(members, chosen))
    return names


def _rare(where: str, rare: Mapping[str, int], counts: Mapping[str, int], least: int) -> str:
    named = ", ".join(f"{label!r} ({count})" for label, count in list(rare.items())[:_SHOWN])
    more = f" and {len(rare) - _SHOWN} more" if len(rare) > _SHOWN else ""
    lost = sum(rare.values())
    same = any(label in members for members in alike(counts) for label in rare)
    merge = "merge those that differ only in case or spaces (--merge-labels), " if same else ""
    return (
        f"{where}: {len(rare)} of {len(counts)} have fewer than {least} rows: {named}{more}; add rows, "
        f"{merge}leave these labels and their {lost} rows out (--drop-rare), or ask for less "
        f"(--min-rows {max(2, min(rare.values()))})"
    )


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(repr(label[:40]) for label in labels)
