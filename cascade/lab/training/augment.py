"""Variations of the training sentences, for the teacher to label.

All randomness comes from the generator that the caller passes.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence

from cascade.lab.training.words import Neighbours

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


def splices(texts: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Return `count` splices of random pairs."""
    return [splice(rng.choice(texts), rng.choice(texts), rng) for _ in range(count)]
