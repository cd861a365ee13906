"""Parses GBNF, the grammar language of llama.cpp, by the same rules (`grammars/README.md` there).

References to tokens (`<|im_end|>`, `<[12]>`) are deliberately unsupported, because they tie a grammar to one
vocabulary.
"""

from __future__ import annotations

from typing import Final, NoReturn

from cascade.errors import ConfigError

MAX_REPEATS = 2000  # llama.cpp treats a larger upper bound as unbounded
MAX_SYMBOLS = 200_000
MAX_NESTING = 100
_WORD: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_HEX: Final = {"x": 2, "u": 4, "U": 8}
_ESCAPES: Final = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}

# A sequence of symbols: n ≥ 0 refers to rule n, -n stands for n ≥ 1 characters.
Alternative = list[int]


class Parser:
    """Turns GBNF into numbered rules, with the helper rules that llama.cpp makes of groups and repetitions.

    Attributes:
        names: rule name → its number.
    """

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self.names: dict[str, int] = {}
        self._rules: list[list[Alternative] | None] = []
        self._owner: list[str] = []  # rule number → the named rule that it belongs to
        self._symbols = 0

    def rules(self) -> list[list[Alternative]]:
        """Return all rules.

        Raises:
            ConfigError: the text is not GBNF, is too large, or refers to a rule that it does not define.
        """
        self._space(newlines=True)
        while self._at < len(self._text):
            name = self._name()
            self._space(newlines=False)
            if not self._text.startswith("::=", self._at):
                self._fail(f"expected '::=' after rule name {name!r}")
            self._at += 3
            self._space(newlines=True)
            number = self._number(name)
            if self._rules[number] is not None:
                self._fail(f"rule {name!r} is defined twice")
            self._rules[number] = self._alternatives(name, 0)
            if self._peek() not in ("", "\r", "\n"):
                self._fail(f"unexpected {self._peek()!r} in rule {name!r}")
            self._space(newlines=True)
        for name, number in self.names.items():
            if self._rules[number] is None:
                raise ConfigError(f"grammar refers to rule {name!r}, which it does not define")
        return [rule or [] for rule in self._rules]

    def owner(self, number: int) -> str:
        """Return the name of the rule in whose text rule `number` was written."""
        return self._owner[number]

    def _number(self, name: str) -> int:
        if name not in self.names:
            self.names[name] = self._helper(name)
        return self.names[name]

    def _helper(self, owner: str) -> int:
        self._rules.append(None)
        self._owner.append(owner)
        self._count(1)
        return len(self._rules) - 1

    def _count(self, symbols: int) -> None:
        self._symbols += symbols
        if self._symbols > MAX_SYMBOLS:
            self._fail(f"more than {MAX_SYMBOLS} symbols when repetitions are written out; simplify it")

    def _alternatives(self, name: str, depth: int) -> list[Alternative]:
        if depth > MAX_NESTING:
            self._fail(f"more than {MAX_NESTING} nested groups; use rules")
        sequences = [self._sequence(name, depth)]
        while self._peek() == "|":
            self._at += 1
            self._space(newlines=True)
            sequences.append(self._sequence(name, depth))
        return sequences

    def _sequence(self, name: str, depth: int) -> Alternative:
        parts: Alternative = []
        start, rules = 0, 1  # where the last item starts, and how many rules it stands for
        while (char := self._peek()) and char not in "|)\r\n":
            if char in "*+?{":
                times = self._repeats()
                if start == len(parts):
                    self._fail("nothing to repeat in front of it")
                rules *= times[1] or times[0] or 1
                if rules > MAX_REPEATS:
                    self._fail(f"more than {MAX_REPEATS} repetitions, counting those inside; use fewer")
                self._repeat(parts, start, times, name)
            else:
                start, before = len(parts), len(self._rules)
                parts += self._item(char, name, depth)
                rules = max(1, len(self._rules) - before) if char == "(" else 1
            self._space(newlines=depth > 0)
        return parts

    def _item(self, char: str, name: str, depth: int) -> Alternative:
        if char == '"':
            size = self._literal()
            self._count(size)
            return [-size] if size else []
        if char == "[":
            self._count(self._class())
            return [-1]
        if char == ".":
            self._at += 1
            self._count(1)
            return [-1]
        if char == "(":
            self._at += 1
            self._space(newlines=True)
            number = self._helper(name)
            self._rules[number] = self._alternatives(name, depth + 1)
            if self._peek() != ")":
                self._fail("expected ')'")
            self._at += 1
            return [number]
        if char in "<!":
            self._fail("tokens in a grammar are not supported; write their characters")
        if char not in _WORD:
            self._fail(f"unexpected {char!r} in rule {name!r}")
        self._count(1)
        return [self._number(self._name())]

    def _repeats(self) -> tuple[int, int | None]:
        """Read `*`, `+`, `?`, `{m}`, `{m,}` or `{m,n}`; return (least, most or None)."""
        char = self._peek()
        self._at += 1
        if char != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        end = self._text.find("}", self._at)
        low, comma, high = self._text[self._at : max(end, self._at)].partition(",")
        low, high = low.strip(" \t"), high.strip(" \t")
        digits = (low, high) if comma and high else (low,)
        if end < 0 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in digits):
            self._fail("expected {m}, {m,} or {m,n} with small numbers")
        self._at = end + 1
        low_count = int(low)
        high_count = (int(high) if high else None) if comma else low_count
        if max(low_count, high_count or 0) > MAX_REPEATS or (
            high_count is not None and high_count < low_count
        ):
            self._fail(f"repetition {{{low_count},{high_count}}} is not in 0 ≤ m ≤ n ≤ {MAX_REPEATS}")
        return low_count, high_count

    def _repeat(self, parts: Alternative, start: int, times: tuple[int, int | None], name: str) -> None:
        """Rewrite the last item as llama.cpp does: S{2,4} → S S (S (S)?)?, S* → a rule S' ::= S S' | ""."""
        low_count, high_count = times
        item = parts[start:]
        size = sum(max(1, -symbol) for symbol in item)
        helpers = 1 if high_count is None else high_count - low_count
        self._count(size * max(0, low_count - 1) + (size + 2) * helpers)
        parts[start:] = item * low_count
        last = -1
        for _ in range(helpers):
            number = self._helper(name)
            rest = [number] if high_count is None else [last] if last >= 0 else []
            self._rules[number] = [[*item, *rest], []]
            last = number
        if last >= 0:
            parts.append(last)

    def _literal(self) -> int:
        self._at += 1
        size = 0
        while self._peek() != '"':
            self._char()
            size += 1
        self._at += 1
        return size

    def _class(self) -> int:
        self._at += 1
        if self._peek() == "^":
            self._at += 1
        size = 0
        while self._peek() != "]":
            first = self._char()
            size += 1
            if self._peek() == "-" and not self._text.startswith("-]", self._at):
                self._at += 1
                if self._char() < first:
                    self._fail("a range that ends before it begins")
                size += 1
        self._at += 1
        if not size:
            self._fail("an empty character class")
        return size

    def _char(self) -> int:
        char = self._peek()
        if not char:
            self._fail("it ends inside a literal or a character class")
        self._at += 1
        if char != "\\":
            return ord(char)
        kind = self._peek()
        self._at += 1
        if kind in _ESCAPES:
            return ord(_ESCAPES[kind])
        if not kind or kind not in _HEX:
            self._fail(f"unknown escape '\\{kind}'; known: x, u, U, t, r, n and \\ \" [ ] -")
        digits = self._text[self._at : self._at + _HEX[kind]]
        self._at += len(digits)
        if len(digits) < _HEX[kind] or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            self._fail(f"'\\{kind}' needs {_HEX[kind]} hexadecimal digits")
        if int(digits, 16) == 0 or int(digits, 16) > 0x10FFFF:
            self._fail(f"'\\{kind}{digits}' is no character")
        return int(digits, 16)

    def _name(self) -> str:
        start = self._at
        while self._peek() in _WORD and self._peek():
            self._at += 1
        if start == self._at:
            self._fail("expected the name of a rule (letters, digits and '-')")
        return self._text[start : self._at]

    def _space(self, *, newlines: bool) -> None:
        blank = " \t\r\n" if newlines else " \t"
        while (char := self._peek()) and (char in blank or char == "#"):
            if char == "#":
                while self._peek() not in ("", "\r", "\n"):
                    self._at += 1
            else:
                self._at += 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _fail(self, why: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise ConfigError(f"grammar is not valid in line {line}: {why}")
