"""Checks a GBNF grammar before llama.cpp sees it.

llama.cpp's parser prints errors to stderr, and some grammars that it accepts hang or kill the process later:
`{5,2}` counts down from zero through 2^64, left recursion through an indirectly empty rule goes unnoticed,
and nested optional parts multiply. The text is therefore parsed here first (`gbnf_parser`), and its size and
branching are bounded.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from cascade.errors import ConfigError
from cascade.formats.gbnf_parser import MAX_SYMBOLS, Alternative, Parser

MAX_BYTES = 2**18
MAX_WAYS = 4000  # in which one rule may begin


@lru_cache(maxsize=64)
def check_grammar(text: str) -> None:
    """Return if `text` is a grammar that llama.cpp can follow safely from its rule `root`.

    Raises:
        ConfigError: it is too large, is not GBNF, refers to undefined rules, is left-recursive, never ends,
            or branches too much.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(f"grammar is not valid Unicode at position {error.start}") from error
    if "\0" in text:
        raise ConfigError(f"grammar holds a NUL at position {text.index(chr(0))}; remove it")
    if size > MAX_BYTES:
        raise ConfigError(f"grammar has {size} bytes; at most {MAX_BYTES} are taken; simplify it")
    parser = Parser(text)
    rules = parser.rules()
    if "root" not in parser.names:
        raise ConfigError("grammar has no rule 'root'; name the rule that it starts with so")
    _check_rules(rules, parser)


def _check_rules(rules: list[list[Alternative]], parser: Parser) -> None:
    """Reject rules that never end, that begin with themselves, or that begin in too many ways."""
    ending = _derivable(rules, characters=True)
    root = parser.names["root"]
    if root not in ending:
        raise ConfigError("grammar never ends: its rule 'root' always leads to itself; give it a way out")
    empty = _derivable(rules, characters=False)
    begins = [_beginnings(rule, empty) for rule in rules]
    waiting = [len(own) for own in begins]
    users: list[list[int]] = [[] for _ in rules]
    for number, own in enumerate(begins):
        for other in own:
            users[other].append(number)
    ways = [len(rule) for rule in rules]
    ready = deque(number for number, count in enumerate(waiting) if not count)
    done, total = 0, 0
    while ready:
        number = ready.popleft()
        done, total = done + 1, total + ways[number]
        if ways[number] > MAX_WAYS or total > MAX_SYMBOLS:
            raise ConfigError(
                f"grammar rule {parser.owner(number)!r} can begin in {ways[number]} ways; at most "
                f"{MAX_WAYS} are followed; do not nest optional parts"
            )
        for user in users[number]:
            ways[user] += ways[number]
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    if done < len(rules):
        name = next(parser.owner(number) for number, count in enumerate(waiting) if count)
        raise ConfigError(f"grammar rule {name!r} begins with itself (left recursion); put a character first")


def _beginnings(rule: list[Alternative], empty: set[int]) -> list[int]:
    """Return the rules that `rule` may begin with, once for each alternative that does."""
    first = []
    for alternative in rule:
        for symbol in alternative:
            if symbol >= 0:
                first.append(symbol)
            if symbol not in empty:
                break
    return first


def _derivable(rules: list[list[Alternative]], *, characters: bool) -> set[int]:
    """Return the rules that derive a finite text; without `characters`, those that derive the empty text."""
    missing: list[int] = []
    owner: list[int] = []
    users: list[list[int]] = [[] for _ in rules]
    derivable: set[int] = set()
    ready: deque[int] = deque()
    for number, rule in enumerate(rules):
        for alternative in rule:
            if not characters and any(symbol < 0 for symbol in alternative):
                continue
            references = [symbol for symbol in alternative if symbol >= 0]
            for symbol in references:
                users[symbol].append(len(missing))
            missing.append(len(references))
            owner.append(number)
            if not references:
                ready.append(number)
    while ready:
        number = ready.popleft()
        if number in derivable:
            continue
        derivable.add(number)
        for use in users[number]:
            missing[use] -= 1
            if not missing[use]:
                ready.append(owner[use])
    return derivable
