"""Regular expressions of other people's, matched in linear time by RE2 (https://github.com/google/re2).

JSON Schema means those of ECMA-262, whose classes `\\d`, `\\w`, `\\s` are ASCII, as RE2's are. RE2 has no
look-around and no back references. Look-aheads at the beginning, as zod and pydantic write them, are matched
all the same: `^(?!A)(?=B)C` holds where `^C` and `^B` are found and `^A` is not. A pattern that RE2 cannot
take, or not within `MAX_MEMORY`, is no `Pattern`: nobody checks it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from cascade.formats.plain import valid_unicode

MAX_LENGTH = 2000  # characters of a pattern
MAX_MEMORY = 2**17  # bytes of a compiled pattern and its caches, which also bound the time to compile it
_MAX_AHEAD = 8  # look-aheads of one pattern
_STEPS_A_MATCH = 8
_BYTES_A_STEP = 500  # times instructions: what RE2 matches in about the time of one step, at its worst
_BROKEN = ("missing", "unexpected", "trailing", "no argument")  # errors of RE2 that every dialect shares
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)


class Pattern(NamedTuple):
    """Expressions that a text must, and must not, match, and their number of instructions."""

    found: tuple[Any, ...]
    absent: tuple[Any, ...]
    size: int

    def cost(self, text: str) -> int:
        """Return how many steps a match of `text` counts as."""
        return _STEPS_A_MATCH + len(text) * self.size // _BYTES_A_STEP

    def matches(self, text: str) -> bool:
        """Return whether the pattern is found in `text`."""
        plain = valid_unicode(text)
        return all(each.search(plain) for each in self.found) and not any(
            each.search(plain) for each in self.absent
        )


def pattern_problem(pattern: object) -> str | None:
    """Return why `pattern` is no regular expression of any dialect, or None."""
    if not isinstance(pattern, str):
        return "expected a string"
    if len(pattern) > MAX_LENGTH:
        return f"it has {len(pattern)} characters; at most {MAX_LENGTH} are taken"
    said = compiled(pattern)
    return said if isinstance(said, str) else None


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Pattern | str | None:
    """Return `pattern` compiled; None if it cannot be matched in bounded time; or why it is no pattern."""
    found: list[Any] = []
    absent: list[Any] = []
    try:
        for ahead, inner in _parts(pattern):
            expression = compile_re2(_translated(inner), max_mem=MAX_MEMORY, never_capture=True)
            (absent if ahead == "!" else found).append(expression)
    except ValueError as error:
        said = str(error)
        return f"it is no regular expression: {said:.100}" if said.startswith(_BROKEN) else None
    size = sum(expression.programsize for expression in [*found, *absent])
    return Pattern(tuple(found), tuple(absent), size)


def compile_re2(pattern: str, **options: object) -> Any:
    """Return `pattern` compiled by RE2, which matches in linear time; `options` are those of `re2.Options`.

    Raises:
        ValueError: RE2 cannot take it; the text says why.
    """
    import re2

    chosen = re2.Options()
    for name, value in {"log_errors": False, **options}.items():
        setattr(chosen, name, value)
    try:
        return re2.compile(pattern, chosen)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else str(error)) from None


def _translated(pattern: str) -> str:
    """Return `pattern` with the escapes that RE2 writes in another way."""

    def escape(match: re.Match[str]) -> str:
        if match[1]:
            return f"\\x{{{match[1]}}}"
        return "\\z" if match[2] == "Z" else match[0]

    return _ESCAPE.sub(escape, pattern)


def _parts(pattern: str) -> list[tuple[str, str]]:
    """Return the look-aheads at the beginning, `=` or `!` with what they look for, and `=` with the rest.

    A pattern without them, or of another shape, is its own rest.
    """
    whole = [("=", pattern)]
    if not pattern.startswith(("^(?=", "^(?!")):
        return whole
    parts: list[tuple[str, str]] = []
    at = 1
    while pattern.startswith(("(?=", "(?!"), at) and len(parts) < _MAX_AHEAD:
        end = _scan(pattern, at + 3, lambda depth, char: depth == 0 and char == ")")
        if end is None:
            return whole
        parts.append((pattern[at + 2], f"^(?:{pattern[at + 3 : end]})"))
        at = end + 1
    rest = pattern[at:]
    if rest[:1] in ("*", "+", "?", "{") or _scan(rest, 0, lambda depth, char: depth == 0 and char == "|"):
        return whole
    return [*parts, ("=", f"^{rest}")]


def _scan(pattern: str, at: int, wanted: Callable[[int, str], bool]) -> int | None:
    """Return where, from `at` on, `wanted` holds of the depth of groups and the character, or None."""
    depth, in_class = 0, False
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif in_class:
            in_class = char != "]"
        elif wanted(depth, char):
            return at
        elif char == "[":
            in_class = True
        else:
            depth += {"(": 1, ")": -1}.get(char, 0)
        at += 1
    return None
