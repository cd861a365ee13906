"""What a text offers for a copied value: its tokens, and the numbers, dates and runs of words in it."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from cascade.formats.number_grammar import LARGEST

MAX_TOKENS = 20_000  # of a text; what follows is not looked at
_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")

_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:([,.'’\u00a0\u202f ])\d{3})(?:\1\d{3})*(?:[.,]\d+)?(?!\d)")
_PLAIN = re.compile(r"\d+(?:[.,]\d+)?")
_SCALED = re.compile(r"(?<![\d.,])(\d+(?:\.\d+)?)\s?(k|K|thousand|m|M|million|bn|billion)\b")
_SCALES = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9}
_NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_WORDS = re.compile(rf"\b({'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)

_MONTHS = (
    "january jan januar janvier enero", "february feb februar février febrero", "march mar märz mars marzo",
    "april apr avril abril", "may mai mayo", "june jun juni juin junio", "july jul juli juillet julio",
    "august aug août agosto", "september sep sept septembre septiembre",
    "october oct oktober octobre octubre", "november nov novembre noviembre",
    "december dec dezember décembre diciembre",
)  # fmt: skip
_MONTH_NUMBER: Mapping[str, int] = {
    name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()
}
_MONTH = rf"(?P<m>{'|'.join(sorted(_MONTH_NUMBER, key=len, reverse=True))})\b\.?"
_DAY = r"(?<!\d)(?P<d>\d{1,2})(?:st|nd|rd|th|\.)?"
_YEAR = r"(?P<y>\d{4}|\d{2})(?!\d)"
_DATES = tuple(
    (reading, re.compile(pattern, re.IGNORECASE))
    for reading, pattern in (
        ("ymd", r"(?<!\d)(?P<y>\d{4})([-/.])(?P<m>\d{1,2})\2(?P<d>\d{1,2})(?!\d)"),
        ("compact", r"(?<!\d)(?P<y>(?:19|20)\d{2})(?P<m>\d{2})(?P<d>\d{2})(?!\d)"),
        ("dmy", rf"(?<!\d)(?<!\d[-/.])(?P<d>\d{{1,2}})([-/.])\s?(?P<m>\d{{1,2}})\2\s?{_YEAR}"),
        ("mdy", rf"(?<!\d)(?<!\d[-/.])(?P<m>\d{{1,2}})([-/])(?P<d>\d{{1,2}})\2{_YEAR}"),
        ("day first", rf"{_DAY}[\s-]*(?:of\s+|de\s+)?{_MONTH},?[\s-]*(?:de\s+)?{_YEAR}"),
        ("month first", rf"\b{_MONTH}\s*{_DAY},?\s+{_YEAR}"),
    )
)


class Token(NamedTuple):
    """A run of letters or of digits, or one other character: where it is, its line, what precedes it.

    `glued`: a letter or digit stands right before it, so that no run of words begins here.
    """

    start: int
    end: int
    line: int
    glued: bool


class Found(NamedTuple):
    """A value in the text: its characters, and how they were read."""

    start: int
    end: int
    value: Any
    reading: str


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a text, at most `MAX_TOKENS`."""
    found: list[Token] = []
    line, last = 0, 0
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        line += text.count("\n", last, start)
        glued = start == last > 0 and text[start].isalnum() and text[start - 1].isalnum()
        found.append(Token(start, end, line, glued))
        last = end
        if len(found) == MAX_TOKENS:
            break
    return found


def numbers_of(text: str) -> list[Found]:
    """Return the numbers of a text; one that can be read in two ways, as `1,234` can, stands there twice.

    Values are finite, at most ±`LARGEST`, and whole numbers are ints.
    """
    found: dict[tuple[int, int, float], Found] = {}
    for start, end, value, reading in _readings(text):
        if math.isfinite(value) and abs(value) <= LARGEST:
            exact = int(value) if float(value).is_integer() else value
            found.setdefault((start, end, exact), Found(start, end, exact, reading))
    return sorted(found.values(), key=lambda each: (each.start, each.end, each.value))


def dates_of(text: str) -> list[Found]:
    """Return the dates of a text as ISO dates (`2026-03-31`); one without a year cannot be dated.

    Of `3/4/2026` both the third of April and the fourth of March stand there, where both exist.
    """
    found: dict[tuple[int, int, str], Found] = {}
    for reading, pattern in _DATES:
        for match in pattern.finditer(text):
            value = _date(match)
            if value is not None:
                found.setdefault((*match.span(), value), Found(*match.span(), value, reading))
    return sorted(found.values(), key=lambda each: (each.start, each.end, each.value))


FINDERS: Mapping[str, Callable[[str], list[Found]]] = {
    "number": numbers_of,
    "integer": lambda text: [each for each in numbers_of(text) if isinstance(each.value, int)],
    "date": dates_of,
}


def collapsed(text: str) -> str:
    """Return `text` with each run of white space as one space: the form in which spans are compared."""
    return " ".join(text.split())


def _readings(text: str) -> Iterator[tuple[int, int, float, str]]:
    for match in _GROUPED.finditer(text):
        written, mark = match[0], match[1]
        whole = written.replace(mark, "")
        yield from _signed(text, match, float(whole.replace(",", ".")), "grouped")
    for match in _PLAIN.finditer(text):
        reading = "decimal" if not match[0].isdigit() else "plain"
        yield from _signed(text, match, float(match[0].replace(",", ".")), reading)
    for match in _SCALED.finditer(text):
        value = round(float(match[1]) * _SCALES[match[2].lower()], 6)
        yield match.start(), match.end(), value, "scaled"
    for match in _WORDS.finditer(text):
        yield match.start(), match.end(), float(_NUMBER_WORDS.index(match[0].lower())), "word"


def _signed(
    text: str, match: re.Match[str], value: float, reading: str
) -> Iterator[tuple[int, int, float, str]]:
    start, end = match.span()
    yield start, end, value, reading
    minus = start and text[start - 1] in "-−" and (start == 1 or not text[start - 2].isalnum())
    if minus and value:
        yield start - 1, end, -value, "negative"


def _date(match: re.Match[str]) -> str | None:
    year, month, day = match["y"], match["m"].lower(), int(match["d"])
    number = int(year) if len(year) == 4 else (2000 if int(year) < 70 else 1900) + int(year)
    try:
        return dt.date(number, _MONTH_NUMBER.get(month) or int(month), day).isoformat()
    except ValueError:
        return None
