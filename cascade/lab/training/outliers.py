"""Sentences that belong to no known intent, made from patterns and the frames of training rows only."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from cascade.lab.training.datasets import OOS, Row
from cascade.lab.training.patterns import OPENINGS, PATTERNS
from cascade.lab.training.seeds import generator
from cascade.lab.training.topics import SLOTS

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICES = {name: words.split("|") for name, words in SLOTS.items()}
_LINES = [line for lines in PATTERNS.values() for line in lines.split("|")]
_OPEN = OPENINGS.split("|")


def question(rng: random.Random) -> str:
    """Return one question from the pattern grammar."""
    line = _SLOT.sub(lambda match: rng.choice(_CHOICES[match[1]]), rng.choice(_LINES))
    return rng.choice(_OPEN) + line


def questions(count: int, seed: int) -> list[str]:
    """Return `count` different questions, which depend only on the seed."""
    rng = generator(seed)
    distinct: dict[str, None] = {}
    while len(distinct) < count:
        distinct[question(rng)] = None
    return list(distinct)


def telling_words(rows: Iterable[Row], share: float = 0.2) -> set[str]:
    """Return the words that give an intent away: more than `share` of their uses have one label."""
    uses: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.label != OOS:
            for word in set(row.text.lower().split()):
                uses[word][row.label] += 1
    return {word for word, labels in uses.items() if max(labels.values()) > share * labels.total()}


def hollow(rows: Sequence[Row], words: Sequence[str], count: int, seed: int) -> list[str]:
    """Return training sentences with their telling words replaced, which keep the frame, not the intent."""
    rng = generator(seed)
    telling = telling_words(rows)
    foreign = [word for word in words if word not in telling]
    result: list[str] = []
    if not any(_has_frame(row.text.lower().split(), telling) for row in rows):
        return result
    while len(result) < count:
        tokens = rng.choice(rows).text.lower().split()
        if _has_frame(tokens, telling):
            result.append(" ".join(rng.choice(foreign) if token in telling else token for token in tokens))
    return result


def _has_frame(tokens: Sequence[str], telling: set[str]) -> bool:
    return 2 <= sum(token not in telling for token in tokens) < len(tokens)
