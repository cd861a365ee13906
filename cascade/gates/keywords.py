"""Gate `keywords`: counts words and phrases."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from cascade.config.messages import quoted_names, suggest
from cascade.spec.kinds import Draft, GateSettings, ModelFacts, ModelSettings, Problem


class KeywordsGate(GateSettings):
    """Scores a candidate by the share of the text's matches that are its own; no match gives all the same."""

    by: Literal["keywords"]
    rules: dict[str, list[str]]
    """Candidate → words or phrases, matched as whole words without regard to case."""

    def check(
        self,
        candidates: Sequence[str],
        models: Mapping[str, ModelSettings],
        facts: Mapping[str, ModelFacts],
    ) -> Iterator[Problem]:
        """Check that each candidate has words, and that none is blank."""
        for name, words in self.rules.items():
            if name not in candidates:
                yield Problem(("rules", name), f"unknown candidate {name!r}; {suggest(name, candidates)}")
            for index, word in enumerate(words):
                if not word.strip():
                    yield Problem(("rules", name, index), f"{word!r} is blank, so it never matches")
        missing = [name for name in candidates if name not in self.rules]
        if missing:
            text = f"no words for {quoted_names(missing)}; each candidate needs an entry"
            yield Problem(("rules",), text)

    async def score(
        self, candidates: Sequence[str], text: str, ask: Callable[[str], Awaitable[Draft | None]]
    ) -> dict[str, float] | None:
        """Return each candidate's share of the matches; asks no model."""
        return score(self.rules, candidates, text)


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
