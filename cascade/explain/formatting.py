"""Formats numbers and texts for people."""

from __future__ import annotations

import json
import re
import textwrap
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal

from cascade.errors import RequestError

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories that can garble or steer a terminal
# The same as a pattern, without what ends or indents a line; all of it is escaped in JSON.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001-\U000e007f]"
)
_AGE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)([mhdw])", re.ASCII)
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}  # seconds
_HASH = len("sha256:") + 64


def format_usd(value: float) -> str:
    """Return US dollars with four decimals, or two significant digits below one cent; zero is `$0`."""
    if value == 0:
        return "$0"
    return f"${value:,.4f}" if abs(value) >= 0.01 else f"${Decimal(f'{value:.2g}'):f}"


def format_between(value: float, low: float | None, high: float | None) -> str:
    """Return an amount in US dollars with its interval: `$0.0021 ($0.0018 to $0.0025)`."""
    if low is None or high is None or low == value == high:
        return format_usd(value)
    return f"{format_usd(value)} ({format_usd(low)} to {format_usd(high)})"


def format_saving(share: float | None, low: float | None, high: float | None) -> str | None:
    """Return how much less, or more, was spent, with its interval: `40% less (25% to 55% less)`.

    None if that is unknown. An end that is unknown, where the baseline may have cost nothing, is left open.
    """
    if share is None:
        return None
    if low == share == high:
        return _less(share)
    ends = [None if end is None else _less(end) for end in (low, high)]
    return f"{_less(share)} ({ends[0] or 'any amount more'} to {ends[1]})"


def _less(share: float) -> str:
    return f"{format_percent(abs(share))} {'less' if share >= 0 else 'more'}"


def format_percent(share: float, digits: int = 0) -> str:
    """Return a share as a percentage; only exactly 0 and 1 are shown as 0% and 100%."""
    shown = f"{share:.{digits}%}"
    if digits < 3 and 0 < share < 1 and float(shown[:-1]) in (0, 100):
        return format_percent(share, digits + 1)
    return shown


def format_duration(seconds: float) -> str:
    """Return a duration in ms, s or min, whichever fits."""
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"


def format_time(started: str) -> str:
    """Return an ISO 8601 time as `2026-11-21 03:40:12 UTC`, or unchanged if it is not one."""
    try:
        return f"{datetime.fromisoformat(started):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return started


def format_number(value: float, digits: int = 3) -> str:
    """Return `value` without trailing zeros; takes up to six digits to show that it is not exactly 0 or 1."""
    shown = f"{value:.{digits}f}"
    if digits < 6 and float(shown) in (0.0, 1.0) and value != float(shown):
        return format_number(value, digits + 1)
    return shown.rstrip("0").rstrip(".")


def format_pair(value: float, threshold: float) -> tuple[str, str]:
    """Return two numbers with the digits needed to tell them apart."""
    for digits in range(3, 9):
        pair = format_number(value, digits), format_number(threshold, digits)
        if value == threshold or pair[0] != pair[1]:
            return pair
    return repr(value), repr(threshold)


def format_floor(value: float) -> str:
    """Return `value` in [0, 1] rounded down to three digits, or more where three would make it 0."""
    if not 0.0 <= value <= 1.0:  # a trace may come from a file that says anything
        return format_number(value)
    exact = Decimal(repr(value))
    for digits in (3, 6):
        floor = exact.quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR)
        if floor > 0:
            return format_number(float(floor), digits)
    return repr(value)


def printable(text: str) -> str:
    """Return `text` with its lines and tabs, and a dot for each character that can steer a terminal."""
    return _STEERING.sub("·", text)


def json_text(value: object, *, indent: int | None = None, allow_nan: bool = True) -> str:
    """Return `value` as JSON in which what can steer a terminal, or is not Unicode, is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=allow_nan)
    return _STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text)


def clean(text: str, limit: int) -> str:
    """Return `text` on one line of at most `limit` characters, without control characters."""
    line = " ".join(text[: 4 * limit].split())
    line = "".join("·" if unicodedata.category(char) in _UNSAFE else char for char in line)
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def clean_lines(text: str) -> str:
    """Return `text` with its lines as they are, and nothing in them that can garble or steer a terminal."""
    return "\n".join(one_line(line) for line in text.splitlines())


def one_line(text: str) -> str:
    """Return all of `text` on one line, without control characters."""
    return clean(text, len(text))


def quoted(text: str | None, limit: int = 160) -> str:
    """Return a text between backticks, cut at `limit` characters; a hash is cut to its first digits."""
    if not text or not text.strip():
        return "an empty text"
    if is_hash(text):
        return f"`{text[:19]}…`"
    return f"`{clean(text, limit)}`"


def is_hash(text: str) -> bool:
    """Return whether `text` is the hash that a store without texts keeps instead."""
    return text.startswith("sha256:") and len(text) == _HASH


def fill(text: str, width: int, indent: str = "", hang: str = "") -> str:
    """Return `text` wrapped to `width` columns, indented, with all lines but the first `hang` deeper."""
    return textwrap.fill(
        one_line(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + hang,
        break_on_hyphens=False,
    )


def parse_age(text: str) -> datetime | None:
    """Return the time (UTC) that was an age such as `30m`, `12h` or `4w` ago; None if `text` is no age.

    Raises:
        OverflowError: that reaches back before the year 1.
    """
    match = _AGE.fullmatch(text.strip())
    return match and datetime.now(UTC) - timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def parse_since(text: str | None) -> str | None:
    """Return a time that a user typed as runs are stored with it: UTC, ISO 8601, milliseconds.

    Raises:
        RequestError: it is neither ISO 8601 nor an age.
    """
    if text is None:
        return None
    try:
        # Without an offset it is local time.
        time = parse_age(text) or datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        example = "2026-11-21, 2026-11-21T06:00, or an age: 2h, 3d"
        raise RequestError(f"--since: {text!r} is no time; give ISO 8601, such as {example}") from None
    return time.isoformat(timespec="milliseconds")
