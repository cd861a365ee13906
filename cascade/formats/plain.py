"""Text and data that every store, stream and peer takes: valid Unicode, and plain JSON of bounded depth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 32  # levels of lists and objects that `plain_json` keeps
_WIDEST = 1024  # bits of an integer that is written as one; longer ones stall whoever prints them


def valid_unicode(text: str) -> str:
    """Return `text` with surrogate pairs joined, and lone surrogates replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain_json(value: object, depth: int = 0) -> Any:
    """Return `value` as JSON can hold it; what it cannot hold is replaced by its description.

    Non-finite numbers stay, as Python's dialect of JSON writes them. Nothing here raises for a value whose
    own methods do not.
    """
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return valid_unicode(value)
    if isinstance(value, int):
        return value if value.bit_length() <= _WIDEST else f"an integer of {value.bit_length()} bits"
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {valid_unicode(str(key)): plain_json(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(inner, depth + 1) for inner in value]
    return valid_unicode(
        f"{value!r:.200}" if type(value).__repr__ is not object.__repr__ else str(type(value))
    )


class Pieces:
    """Joins surrogate pairs that a stream of text was split in, so that every piece is valid Unicode."""

    def __init__(self) -> None:
        self._held = ""

    def add(self, piece: str) -> str:
        """Return what can be handed over now; a high surrogate at the end waits for its other half."""
        text = self._held + piece
        self._held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return valid_unicode(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """Return what still waits, which nothing completed."""
        held, self._held = self._held, ""
        return valid_unicode(held)


def json_problem(value: object, *, max_bytes: int, max_depth: int) -> str | None:
    """Return why `value` is not plain JSON within bounds, or None; it stops where a bound is passed.

    Args:
        value: anything.
        max_bytes: of all texts in UTF-8, and one for each other value: less than the JSON text has.
        max_depth: levels of lists and objects.
    """
    size, todo = 0, [(value, 0)]
    while todo:
        item, depth = todo.pop()
        if isinstance(item, dict | list):
            if depth == max_depth:
                return f"is nested deeper than {max_depth} levels"
            size += len(item)  # before its parts are looked at: a long list is not copied
            if isinstance(item, dict) and size <= max_bytes:
                todo += [(key, -1) for key in item]
            if size <= max_bytes:
                todo += [(part, depth + 1) for part in (item.values() if isinstance(item, dict) else item)]
        elif isinstance(item, str):
            size += len(item)
            problem = None if item.isascii() or len(item) > max_bytes else _unicode_problem(item)
            if problem is not None:
                return problem
        else:
            problem = _number_problem(item) if depth >= 0 else f"has a key {item!r:.40}; expected a string"
            if problem is not None:
                return problem
            size += 1
        if size > max_bytes:
            return f"has more than {max_bytes} bytes; make it smaller"
    return None


def _unicode_problem(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"is not valid Unicode: {text!r:.40}"
    return None


def _number_problem(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        long = value.bit_length() > _WIDEST
        return f"holds an integer of {value.bit_length()} bits; at most {_WIDEST}" if long else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is not plain JSON ({value} is no number in it)"
    return f"is not plain JSON (a {type(value).__name__} has no place in it)"
