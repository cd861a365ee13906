"""Common words and their nearest neighbours, from the teacher's vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FIRST_WORD = 1996  # entries before it are special tokens, digits and single characters


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each word, other words close to it in the teacher's vector space."""

    near: dict[str, tuple[str, ...]]

    def of(self, word: str) -> tuple[str, ...]:
        """Return a word's neighbours; empty if there are none."""
        return self.near.get(word, ())


def common_words(limit: int) -> list[str]:
    """Return the `limit` most common plain words of the teacher's vocabulary, most common first."""
    from cascade.lab.training.teacher import weights_dir

    lines = (weights_dir() / "vocab.txt").read_text(encoding="utf-8").split("\n")[FIRST_WORD:]
    return [word for word in lines if word.isascii() and word.isalpha() and len(word) > 2][:limit]


def word_counts(texts: Iterable[str], common: Sequence[str], weight: int = 2) -> dict[str, int]:
    """Return how often the tokenizer's trainer sees each word: its uses, plus a weight for its rank."""
    counts = Counter(word for text in texts for word in text.lower().split())
    for rank, word in enumerate(common):
        counts[word] += max(weight, 6000 // (rank + 40))
    return dict(counts)


def frequent(texts: Iterable[str], floor: int = 2) -> list[str]:
    """Return plain words that occur at least `floor` times, in order of appearance."""
    counts = Counter(word.strip(".,?!") for text in texts for word in text.lower().split())
    return [w for w, count in counts.items() if count >= floor and w.isascii() and w.isalpha() and len(w) > 2]


def embed_words(words: Sequence[str]) -> Any:
    """Return the untrained teacher's unit vectors of words, shape (words, width)."""
    from cascade.lab.training.teacher import TeacherSettings, build, predict

    _, vectors = predict(build({}, TeacherSettings(max_tokens=16)), words, batch=512)
    return vectors.astype(np.float32)


def neighbours(words: Sequence[str], vectors: Any, count: int = 8, floor: float = 0.5) -> Neighbours:
    """Return for each word at most `count` others at a cosine of at least `floor`."""
    near: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(words), 1024):
        scores = vectors[start : start + 1024] @ vectors.T
        best = np.argpartition(-scores, count + 1, axis=1)[:, : count + 1]
        for row, columns in enumerate(best):
            mine = words[start + row]
            close = [k for k in columns if scores[row, k] >= floor and words[k] != mine]
            ranked = sorted((-scores[row, k], words[k]) for k in close)
            if ranked:
                near[mine] = tuple(word for _, word in ranked[:count])
    return Neighbours(near)
