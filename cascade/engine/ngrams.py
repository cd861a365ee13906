"""Hashed n-grams of words and of characters: the same features when a head learns and when it answers.

A feature is a 32-bit key: the hash of a word, of two words in a row, or of two to five characters in a
word and the spaces around it. Its lowest bit tells which of the two kinds it is, words or characters, because
each kind has a length of its own. All hashes of a text come from one cumulative polynomial hash (R. M. Karp
and M. O. Rabin 1987), without a loop over the n-grams.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]
MAX_CHARACTERS = 20_000  # of a text that are looked at
WORD, CHARACTERS = 0, 1  # kinds, in the lowest bit of a key
_SIZES = (2, 3, 4, 5)  # characters of an n-gram
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2 ** 64
_INVERSE = pow(_BASE, -1, 2**64)
_PAIR = 0xD6E8FEB86659FD93
_WORDS = re.compile(r"\w+|[^\w\s]")
_SPACE = 32
_BLOCK = 256  # texts that are hashed together


class Counts(NamedTuple):
    """How often each feature is in each text, text by text and in the order of the keys.

    Attributes:
        starts: where the features of each text begin, shape (texts + 1,).
        keys: the features.
        counts: how often each is in its text.
    """

    starts: npt.NDArray[np.int64]
    keys: Keys
    counts: npt.NDArray[np.float32]


def count_ngrams(texts: Sequence[str]) -> Counts:
    """Return the features of texts. Upper and lower case are one, and so are all kinds of white space."""
    parts = [_count_block(texts[start : start + _BLOCK]) for start in range(0, len(texts), _BLOCK)]
    lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.starts) for part in parts)])
    return Counts(
        np.cumsum(lengths),
        np.concatenate([np.zeros(0, np.uint32), *(part.keys for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.counts for part in parts)]),
    )


def _count_block(texts: Sequence[str]) -> Counts:
    plain = [f" {' '.join(text[:MAX_CHARACTERS].lower().split())} " for text in texts]
    joined = "".join(plain)
    begins = np.cumsum([0, *map(len, plain)])
    characters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    spans = _Spans(characters)
    row_of = np.repeat(np.arange(len(plain), dtype=np.uint64), np.diff(begins))
    found = [_words(joined, spans, row_of), *(_characters(spans, row_of, size) for size in _SIZES)]
    # A row and its key in one number, so that one sort brings equal ones together.
    both = np.concatenate(found)
    distinct, counts = np.unique(both, return_counts=True)
    rows = (distinct >> np.uint64(32)).astype(np.int64)
    starts = np.searchsorted(rows, np.arange(len(plain) + 1))
    return Counts(
        starts.astype(np.int64),
        (distinct & np.uint64(0xFFFFFFFF)).astype(np.uint32),
        counts.astype(np.float32),
    )


class _Spans:
    """Hashes of any part of a text, each by a subtraction and a product."""

    def __init__(self, characters: Hashes) -> None:
        self.characters = characters
        size = len(characters) + 1
        powers = np.cumprod(np.r_[np.uint64(1), np.full(size - 1, _BASE, np.uint64)])
        self._inverse = np.cumprod(np.r_[np.uint64(1), np.full(size - 1, _INVERSE, np.uint64)])
        self._sums = np.r_[np.uint64(0), np.cumsum((characters + np.uint64(1)) * powers[:-1])]

    def hashes(self, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Hashes:
        differences = self._sums[end] - self._sums[begin]
        return np.asarray(differences * self._inverse[begin], dtype=np.uint64)


def _words(joined: str, spans: _Spans, row_of: Hashes) -> Hashes:
    places = np.array([match.span() for match in _WORDS.finditer(joined)], np.int64).reshape(-1, 2)
    if not len(places):
        return np.zeros(0, np.uint64)
    rows = row_of[places[:, 0]]
    single = spans.hashes(places[:, 0], places[:, 1])
    together = rows[1:] == rows[:-1]
    pairs = (single[:-1] * np.uint64(_PAIR) + single[1:])[together]
    return np.concatenate([_keys(single, rows, WORD, 1), _keys(pairs, rows[1:][together], WORD, 2)])


def _characters(spans: _Spans, row_of: Hashes, size: int) -> Hashes:
    """Return the n-grams without a space inside; one at the beginning or the end marks a word's end."""
    count = len(spans.characters) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    space = spans.characters == _SPACE
    begin = np.arange(count, dtype=np.int64)
    inner = np.zeros(count, np.bool_)
    for offset in range(1, size - 1):
        inner |= space[offset : offset + count]
    inner |= space[:count] & space[size - 1 : size - 1 + count]
    # Two texts meet in two spaces, so what stands across them has a space inside or two at its ends.
    begin = begin[~inner]
    return _keys(spans.hashes(begin, begin + size), row_of[begin], CHARACTERS, size)


def _keys(hashes: Hashes, rows: Hashes, kind: int, size: int) -> Hashes:
    """Return rows and keys in one number each, mixed as in SplitMix64 (G. L. Steele et al. 2014)."""
    mixed = hashes + np.uint64((size * 2 + kind) * _PAIR % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    key = ((mixed >> np.uint64(32)) & np.uint64(0xFFFFFFFE)) | np.uint64(kind)
    return np.asarray((rows << np.uint64(32)) | key, dtype=np.uint64)
