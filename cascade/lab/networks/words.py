"""Common words and their nearest neighbours, from the encoder's own vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WORD_START = "▁"  # how a GGUF file of WordPiece writes a piece that begins a word


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each word, other words close to it in the encoder's vector space."""

    near: dict[str, tuple[str, ...]]

    def of(self, word: str) -> tuple[str, ...]:
        """Return a word's neighbours; empty if there are none."""
        return self.near.get(word, ())


def common_words(pieces: Iterable[str], limit: int) -> list[str]:
    """Return the first `limit` plain words of a vocabulary, which lists the most common first."""
    words = (piece[1:] for piece in pieces if piece.startswith(WORD_START))
    return [word for word in words if word.isascii() and word.isalpha() and len(word) > 2][:limit]


def word_counts(texts: Iterable[str], common: Sequence[str], weight: int = 2) -> dict[str, int]:
    """Return how often the tokenizer's trainer sees each word: its uses, plus a weight for its rank."""
    counts = Counter(word for text in texts for word in text.lower().split())
    for rank, word in enumerate(common):
        counts[word] += max(weight, 6000 // (rank + 40))
    return dict(counts)


def frequent(texts: Iterable[str], floor: int = 2) -> list[str]:
    """Return plain words that occur at least `floor` times, in order of appearance."""
    counts = Counter(word.strip(".,?!") for text in texts for word in text.lower().split())
    return [word for word, count in counts.items() if count >= floor and word.isalpha() and len(word) > 2]


def neighbours(words: Sequence[str], vectors: Any, count: int = 8, floor: float = 0.5) -> Neighbours:
    """Return for each word at most `count` others at a cosine of at least `floor`.

    Args:
        words: the words.
        vectors: their unit vectors, shape (words, width).
        count: how many neighbours a word has at most.
        floor: the smallest cosine of a neighbour.
    """
    near: dict[str, tuple[str, ...]] = {}
    most = min(count + 1, len(words) - 1)
    for start in range(0, len(words), 1024):
        scores = vectors[start : start + 1024] @ vectors.T
        best = np.argpartition(-scores, most, axis=1)[:, : most + 1]
        for row, columns in enumerate(best):
            mine = words[start + row]
            close = [k for k in columns if scores[row, k] >= floor and words[k] != mine]
            ranked = sorted((-scores[row, k], words[k]) for k in close)
            if ranked:
                near[mine] = tuple(word for _, word in ranked[:count])
    return Neighbours(near)
