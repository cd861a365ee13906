"""What separates the cells of a CSV file: commas, or the semicolons that Excel writes in most of Europe."""

from __future__ import annotations

from itertools import islice

from cascade.errors import RequestError
from cascade.lab.tables.cells import csv_lines, header_problem, said_separator

NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_SAMPLE = 500  # rows


def find_separator(name: str, text: str) -> str:
    """Return what separates the cells of `text`, the content of the file `name`.

    A separator fits if it makes at least two columns of the header and as many of each of the first rows.
    None fits where a row is broken: then the one that makes most of the header is meant, and the row's line
    is told by who reads it.

    Raises:
        RequestError: several fit, and nothing tells which is meant.
    """
    if said := said_separator(text):
        return said
    widths = {mark: _widths(text, mark) for mark in NAMES}
    fitting = [mark for mark, rows in widths.items() if _fits(rows)]
    if len(fitting) > 1:
        marks = " and ".join(NAMES[mark] for mark in fitting)
        raise RequestError(
            f"{name}:1: {marks} may both separate the cells; tell which (--separator '{fitting[0]}')"
        )
    if fitting:
        return fitting[0]
    return max(NAMES, key=lambda mark: widths[mark][0] if widths[mark] else 0)


def _widths(text: str, separator: str) -> list[int]:
    """Return the numbers of cells of the header and the first rows; empty if there is no usable header."""
    widths: list[int] = []
    for _, cells in islice(csv_lines(text, separator), _SAMPLE):
        if isinstance(cells, RequestError):
            return [*widths, 0]
        while cells and not cells[-1].strip() and (not widths or len(cells) > widths[0]):
            cells.pop()
        if not widths and header_problem(cells):
            return []
        if any(cells):
            widths.append(len(cells))
    return widths


def _fits(widths: list[int]) -> bool:
    return bool(widths) and widths[0] > 1 and all(width == widths[0] for width in widths)
