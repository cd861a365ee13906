"""The transfer set: every text that a student learns from, and what a teacher answers to it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.lab.networks.augment import hollow, splice, vary
from cascade.lab.networks.words import Neighbours

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """How many texts of each kind are made of a row.

    Attributes:
        variants: texts with lost, swapped, doubled, misspelt or neighbouring words.
        twins: varied splices with another row of the same label.
        splices: splices with any other row.
        hollow: frames without meaning.
        most: texts that are made in all; where rows are many, each gets fewer.
        trust: how far the target of a labelled row moves from the teacher's answer to the row's label.
    """

    variants: float = 7.0
    twins: float = 2.0
    splices: float = 1.0
    hollow: float = 0.7
    most: int = 110_000
    trust: float = 0.5

    def of(self, rows: int) -> dict[str, int]:
        """Return the number of texts of each kind that `rows` rows give."""
        kinds = {
            "variants": self.variants,
            "twins": self.twins,
            "splices": self.splices,
            "hollow": self.hollow,
        }
        less = min(1.0, self.most / (rows * sum(kinds.values())))
        return {kind: round(rows * count * less) for kind, count in kinds.items()}


@dataclass(frozen=True, slots=True)
class TransferSet:
    """Texts of one task for a student.

    Attributes:
        texts: the rows, then what was made of them.
        labels: number of each text's label, or `UNLABELLED`.
    """

    texts: list[str]
    labels: Any


def compose(
    texts: Sequence[str],
    labels: Sequence[int],
    unlabelled: Sequence[str],
    words: Sequence[str],
    near: Neighbours,
    settings: TransferSettings,
    rng: random.Random,
) -> TransferSet:
    """Return the rows, the texts without labels, and variations of the rows, without repetitions.

    Args:
        texts: the rows' texts.
        labels: the number of each row's label.
        unlabelled: other texts of the user.
        words: common words, for frames without meaning.
        near: words of similar meaning.
        settings: how many texts to make.
        rng: all randomness.
    """
    counts = settings.of(len(texts))
    by_label: dict[int, list[str]] = defaultdict(list)
    for text, label in zip(texts, labels, strict=True):
        by_label[label].append(text)
    order = [rng.sample(range(len(texts)), len(texts)) for _ in range(_rounds(counts, len(texts)))]
    turn = [i for part in order for i in part]
    made = [vary(texts[i], rng, near) for i in turn[: counts["variants"]]]
    made += [
        vary(splice(texts[i], rng.choice(by_label[labels[i]]), rng), rng, near)
        for i in turn[: counts["twins"]]
    ]
    made += [splice(texts[i], rng.choice(texts), rng) for i in turn[: counts["splices"]]]
    made += hollow(list(zip(texts, map(str, labels), strict=True)), words, counts["hollow"], rng)
    known = set(texts)
    others = [text for text in dict.fromkeys([*unlabelled, *made]) if text.strip() and text not in known]
    return TransferSet(
        [*texts, *others], np.concatenate([np.array(labels), np.full(len(others), UNLABELLED)])
    )


def _rounds(counts: dict[str, int], rows: int) -> int:
    return -(-max(counts.values()) // rows)


def softmax(logits: Any) -> Any:
    """Return the softmax of each row, as float32."""
    shifted = np.exp(logits.astype(np.float32) - logits.max(1, keepdims=True).astype(np.float32))
    return shifted / shifted.sum(1, keepdims=True)


def targets(logits: Any, labels: Any, trust: float) -> Any:
    """Return what a student should answer, float16 (texts, labels).

    That is the teacher's distribution; a row with a label moves `trust` of the way towards it.
    """
    wanted = softmax(logits)
    rows = np.flatnonzero(labels != UNLABELLED)
    wanted[rows] *= 1 - trust
    wanted[rows, labels[rows]] += trust
    return wanted.astype(np.float16)
