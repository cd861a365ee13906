"""Variations of the user's rows, and texts that belong to no label, all made from the rows alone.

All randomness comes from the generator that the caller passes.
"""

from __future__ import annotations

import random
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from cascade.lab.networks.words import Neighbours

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ADJACENT_KEYS = {
    c: (row[max(0, i - 1) : i] + row[i + 1 : i + 2]) for row in _ROWS for i, c in enumerate(row)
}

Words = list[str]


def typo(word: str, rng: random.Random) -> str:
    """Make one typing error: drop, double, swap or mistype a letter."""
    if len(word) < 3:
        return word
    at = rng.randrange(len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + rng.choice(_ADJACENT_KEYS.get(word[at], string.ascii_lowercase)) + word[at + 1 :]


def drop(words: Words, rng: random.Random, share: float) -> Words:
    """Drop some words, but never all."""
    kept = [word for word in words if rng.random() >= share]
    return kept or [rng.choice(words)]


def swap(words: Words, rng: random.Random) -> Words:
    """Swap two adjacent words."""
    if len(words) < 2:
        return words
    at = rng.randrange(len(words) - 1)
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]


def repeat(words: Words, rng: random.Random) -> Words:
    """Repeat one word."""
    at = rng.randrange(len(words))
    return [*words[: at + 1], *words[at:]]


def slip(words: Words, rng: random.Random, share: float) -> Words:
    """Misspell some words."""
    return [typo(word, rng) if rng.random() < share else word for word in words]


def replace(words: Words, rng: random.Random, share: float, near: Neighbours) -> Words:
    """Replace some words by words of similar meaning."""
    result = []
    for word in words:
        others = near.of(word.lower().strip(".,?!")) if rng.random() < share else ()
        result.append(rng.choice(others) if others else word)
    return result


def vary(text: str, rng: random.Random, near: Neighbours) -> str:
    """Return a variation of `text`, made by one to three of the changes above."""
    words = text.split()
    if not words:
        return text
    changes: list[Callable[[Words], Words]] = [
        lambda w: replace(w, rng, rng.choice((0.15, 0.3, 0.5)), near),
        lambda w: replace(w, rng, rng.choice((0.15, 0.3, 0.5)), near),
        lambda w: drop(w, rng, rng.choice((0.1, 0.2, 0.35))),
        lambda w: slip(w, rng, rng.choice((0.1, 0.25))),
        lambda w: swap(w, rng),
        lambda w: repeat(w, rng),
    ]
    for change in rng.sample(changes, rng.choice((1, 1, 2, 3))):
        words = change(words)
    return " ".join(words)


def splice(first: str, second: str, rng: random.Random) -> str:
    """Join the start of one sentence and the end of another, or both in full."""
    a, b = first.split(), second.split()
    if rng.random() < 0.25:
        return " ".join([*a, *b])
    stop, start = max(1, round(len(a) * rng.uniform(0.3, 0.8))), round(len(b) * rng.uniform(0.2, 0.7))
    return " ".join([*a[:stop], *b[start:]])


def telling_words(rows: Iterable[tuple[str, str]], share: float = 0.2) -> set[str]:
    """Return the words of (text, label) rows that tell it: more than `share` of their uses have one."""
    uses: dict[str, Counter[str]] = defaultdict(Counter)
    for text, label in rows:
        for word in set(text.lower().split()):
            uses[word][label] += 1
    return {word for word, labels in uses.items() if max(labels.values()) > share * labels.total()}


def hollow(
    rows: Sequence[tuple[str, str]], words: Sequence[str], count: int, rng: random.Random
) -> list[str]:
    """Return `count` texts with the frame of a row and none of its meaning.

    The telling words of (text, label) rows are replaced by others out of `words`. Empty if no row has both a
    telling word and two others, or if there is no word to put in.
    """
    telling = telling_words(rows)
    foreign = [word for word in words if word not in telling]
    split = [text.lower().split() for text, _ in rows]
    frames = [tokens for tokens in split if 2 <= sum(token not in telling for token in tokens) < len(tokens)]
    if not frames or not foreign:
        return []
    return [
        " ".join(rng.choice(foreign) if token in telling else token for token in rng.choice(frames))
        for _ in range(count)
    ]
