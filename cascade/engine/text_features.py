"""A text as hashed features: what stands before, in and after each candidate for a copied value.

The features of a run of words are those of its first token, of its last, of each token in it, and a few of
its own. So all runs of a text are scored by a few vector operations.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.candidates import FINDERS, collapsed, tokens_of

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]

BITS = 18
BUCKETS = 1 << BITS  # of the hash of features
MAX_SPAN = 32  # tokens
WHOLE = 0.3  # weight of the text's words beside the features of a candidate
_REACH = 6  # words before and after that count
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.uint64(0)
_BRACKETS = {**dict.fromkeys("([{", 1), **dict.fromkeys(")]}", -1)}


class TextView:
    """A text as the rankers of all fields see it.

    Attributes:
        text: the text.
        tokens: its tokens.
        first: features of a candidate's first token, hashed: shape (tokens, features).
        last: those of its last token.
        inner: those of each token in it.
        whole: those of the text as a whole, for "there is none".
    """

    def __init__(self, text: str) -> None:
        """Read `text`."""
        self.text = text
        self.tokens = tokens_of(text)
        words = [text[token.start : token.end] for token in self.tokens]
        self._hash = _hashes(word.lower() for word in words)
        self._shape = _hashes(map(_shape, words))
        self._line = np.array([token.line for token in self.tokens], np.int64)
        self._glued = np.array([token.glued for token in self.tokens], bool)
        self._starts = np.array([token.start for token in self.tokens], np.int64)
        self._ends = np.array([token.end for token in self.tokens], np.int64)
        self._word = np.array([word[0].isalpha() for word in words], bool)
        stems = _hashes(word.lower()[:4] for word in words)
        tails = _hashes(word.lower()[-3:] for word in words)
        self.first = self._side(stems, tails, -1, 0)
        self.last = self._side(stems, tails, 1, 100)
        self.inner = np.stack([_tag(self._hash, 201), _tag(self._shape, 202)], 1)
        bag = np.unique(np.concatenate([_tag(self._hash, 210), _tag(stems, 211)]))
        self.whole = np.concatenate([_buckets(np.array([_MIX])), bag])

    def _side(self, stems: HashArray, tails: HashArray, step: int, tag: int) -> IntArray:
        """Return the features of each token as the first (`step` -1) or the last (1) of a candidate."""
        count = len(self.tokens)
        near = np.arange(count)[:, None] + step * np.arange(1, 4)
        outside = (near < 0) | (near >= count)
        near = near.clip(0, max(0, count - 1))
        same = ~outside & (self._line[near] == self._line[:, None]) if count else outside
        beside = np.where(outside, _NONE, self._hash[near] + same.astype(np.uint64)) if count else near
        columns = [
            _tag(self._hash, tag), _tag(self._shape, tag + 1), _tag(tails, tag + 2),
            *(_tag(beside[:, k], tag + 3 + k) for k in range(3)),
            _tag(_join(beside[:, 0], beside[:, 1]), tag + 6),
            _tag(_join(_join(beside[:, 0], beside[:, 1]), beside[:, 2]), tag + 7),
            _tag(_join(np.where(outside[:, 0], _NONE, self._shape[near[:, 0]]), self._shape), tag + 8),
        ] if count else []  # fmt: skip
        columns += self._words(stems, step, tag + 10) if count else []
        return np.stack(columns, 1) if columns else np.empty((0, 1), np.int64)

    def _words(self, stems: HashArray, step: int, tag: int) -> list[IntArray]:
        """Return features of the words before (`step` -1) or after each token, and of its line's opening."""
        at = np.flatnonzero(self._word)
        count = len(self.tokens)
        rank = np.searchsorted(at, np.arange(count), "left" if step < 0 else "right")
        columns, before = [], np.zeros(count, np.uint64)
        for distance in range(_REACH):
            index = rank - 1 - distance if step < 0 else rank + distance
            outside = (index < 0) | (index >= len(at))
            place = at[index.clip(0, max(0, len(at) - 1))] if len(at) else np.zeros(count, np.int64)
            same = (self._line[place] == self._line).astype(np.uint64)
            word = np.where(outside, _NONE, self._hash[place])
            stem = np.where(outside, _NONE, stems[place] + same)
            columns += [_tag(word + same, tag), _tag(stem, tag + 1)]
            if distance < 2:
                columns += [
                    _tag(word + same, tag + 2 + distance),
                    _tag(_join(word, before), tag + 4 + distance),
                ]
                before = word
        opening = np.searchsorted(self._line, self._line, "left")
        columns.append(_tag(_join(self._hash[opening], np.uint64(step < 0)), tag + 8))
        columns.append(_tag((opening == np.arange(count)).astype(np.uint64), tag + 9))
        return columns

    def spans(self, longest: int, edges: str) -> Candidates:
        """Return the runs of at most `longest` tokens of one line; edges: words, `edges`."""
        count = len(self.tokens)
        chars = [self.text[token.start] for token in self.tokens]
        edge = np.array([char.isalnum() or char in edges for char in chars], bool)
        open_ = edge & ~self._glued if count else edge
        close = edge & ~np.append(self._glued[1:], False) if count else edge
        first = np.repeat(np.flatnonzero(open_), longest)
        last = first + np.tile(np.arange(longest), int(open_.sum()))
        keep = last < count
        first, last = first[keep], last[keep]
        keep = close[last] & (self._line[first] == self._line[last])
        first, last = first[keep], last[keep]
        values = [
            collapsed(self.text[a:b]) for a, b in zip(self._starts[first], self._ends[last], strict=True)
        ]
        return Candidates(values, first, last, self._runs(first, last))

    def found(self, kind: str) -> Candidates:
        """Return the numbers, whole numbers or dates of the text."""
        found = [each for each in FINDERS[kind](self.text) if self.tokens and each.start < self._ends[-1]]
        first = np.searchsorted(self._ends, [each.start for each in found], "right")
        last = np.searchsorted(self._starts, [each.end for each in found], "left") - 1
        values = [each.value for each in found]
        extra = np.empty((0, 1), np.int64)
        if found:
            readings = _hashes(each.reading for each in found)
            own = [
                _tag(readings, 300),
                _tag(_hashes(_size(each.value) for each in found), 301),
                *_ranks(values),
            ]
            beside = _tag(_join(readings[:, None], np.unique(self._hash)[None, :]), 307)
            extra = np.concatenate([np.stack(own, 1), beside], 1)
        return Candidates(values, first.astype(np.int64), last.astype(np.int64), extra)

    def _runs(self, first: IntArray, last: IntArray) -> IntArray:
        """Return features of runs of tokens: length, words, shapes, brackets that do not close, how often."""
        length = (last - first + 1).astype(np.uint64)
        words, shapes = _rolling(self._hash, first, last), _rolling(self._shape, first, last)
        _, which, counts = np.unique(words, return_inverse=True, return_counts=True)
        often = np.minimum(counts[which], 4).astype(np.uint64)
        opened = np.cumsum([0, *(_BRACKETS.get(self.text[token.start], 0) for token in self.tokens)])
        uneven = (opened[last + 1] != opened[first]).astype(np.uint64)
        return np.stack([
            _tag(length, 310), _tag(words, 311), _tag(shapes, 312), _tag(often, 313), _tag(uneven, 314),
            _tag(_join(often, length), 315),
        ], 1)  # fmt: skip


class Candidates(NamedTuple):
    """Candidates of a text: values, the indices of their first and last tokens, features of their own."""

    values: list[Any]
    first: IntArray
    last: IntArray
    extra: IntArray

    def kept(self, keep: Sequence[int]) -> Candidates:
        """Return those of the indices `keep`."""
        index = np.array(keep, np.int64)
        values = [self.values[each] for each in keep]
        return Candidates(values, self.first[index], self.last[index], self.extra[index])


def _hashes(texts: Iterable[str]) -> HashArray:
    found = np.fromiter((zlib.crc32(text.encode("utf-8", "replace")) for text in texts), np.uint64)
    return (found + np.uint64(2)) * _MIX


def _join(one: Any, other: Any) -> HashArray:
    joined: HashArray = (one * np.uint64(31) + other + np.uint64(7)) * _MIX
    return joined


def _buckets(hashes: HashArray) -> IntArray:
    return (hashes >> np.uint64(64 - BITS)).astype(np.int64)


def _tag(hashes: Any, tag: int) -> IntArray:
    """Return the buckets of features that are called `tag`."""
    mixed = (hashes ^ np.uint64((tag + 1) * 0xD6E8FEB86659FD93 % 2**64)) * _MIX
    mixed ^= mixed >> np.uint64(29)
    return _buckets(mixed * np.uint64(0xBF58476D1CE4E5B9))


def _rolling(hashes: HashArray, first: IntArray, last: IntArray) -> HashArray:
    """Return a hash of each run first … last, made of a polynomial of the hashes in it."""
    base = np.uint64(0x100000001B3)
    powers = np.full(MAX_SPAN + 1, base, np.uint64)
    powers[0] = 1
    powers = np.multiply.accumulate(powers)
    total = np.zeros(len(first), np.uint64)
    for distance in range(int((last - first).max(initial=-1)) + 1):
        inside = first + distance <= last
        values = hashes[np.minimum(first + distance, last)]
        total = np.where(inside, total + values * powers[distance], total)
    return total


def _shape(word: str) -> str:
    """Return `Xx` for Word, `X` for WORD, `x` for word, `9` and the length for digits, else the character."""
    if word[0].isdigit():
        return f"9{min(len(word), 9)}"
    if not word[0].isalpha():
        return word
    if word.islower():
        return "x"
    return ("X" if len(word) > 1 else "X1") if word.isupper() else "Xx"


def _size(value: Any) -> str:
    """Return the order of magnitude of a number, and whether it has a fraction; `date` for a date."""
    if isinstance(value, str):
        return "date"
    digits = len(str(abs(int(value))))
    return f"{'-' if value < 0 else ''}{digits}{'' if isinstance(value, int) else '.'}"


def _ranks(values: list[Any]) -> list[IntArray]:
    """Return features of how each value stands among all: in order of size, of place, and how often."""
    distinct = sorted(set(values))
    rank = np.array([distinct.index(value) for value in values], np.uint64)
    place = np.arange(len(values), dtype=np.uint64)
    from_top = np.uint64(len(distinct) - 1) - rank
    often = np.array([min(values.count(value), 4) for value in values], np.uint64)
    few = np.uint64(3)
    return [
        _tag(np.minimum(rank, few), 302), _tag(np.minimum(from_top, few), 303),
        _tag(np.minimum(place, few), 304), _tag(np.minimum(place[::-1], few), 305), _tag(often, 306),
    ]  # fmt: skip
