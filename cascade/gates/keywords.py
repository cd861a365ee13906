"""A gate that counts words and phrases."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache


def score(
    rules: Mapping[str, Sequence[str]], candidates: Sequence[str], text: str
) -> dict[str, float] | None:
    """Return each candidate's share of the matches in `text`; without any match all get the same.

    Words and phrases match as whole words, whatever their case and white space; within one candidate's
    list the longest match counts and matches do not overlap. None if there are no candidates.
    """
    if not candidates:
        return None
    folded = _fold(text)
    counts = {name: _count(tuple(rules.get(name, ())), folded) for name in candidates}
    total = sum(counts.values())
    if total == 0:
        return dict.fromkeys(counts, 1.0 / len(counts))
    return {name: count / total for name, count in counts.items()}


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _count(phrases: tuple[str, ...], folded: str) -> int:
    pattern = _pattern(phrases)
    return sum(1 for _ in pattern.finditer(folded)) if pattern else 0


@lru_cache(maxsize=1024)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str] | None:
    words = sorted({_fold(phrase) for phrase in phrases} - {""}, key=lambda word: (-len(word), word))
    if not words:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)")
