"""The transfer set: every sentence that a student learns from."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cascade.lab.training.augment import splice, splices, vary
from cascade.lab.training.datasets import OOS, Split
from cascade.lab.training.outliers import hollow, questions
from cascade.lab.training.seeds import generator
from cascade.lab.training.words import Neighbours


@dataclass(frozen=True, slots=True)
class Item:
    """A sentence for one task; `label` is empty if only the teacher can label it."""

    text: str
    task: str
    label: str


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The number of sentences of each kind."""

    variants: int = 8
    splices: int = 12000
    twins: int = 2
    questions: int = 40000
    hollow: int = 12000
    seed: int = 0


def compose(
    splits: Sequence[Split], words: Sequence[str], near: Neighbours, settings: PoolSettings
) -> list[Item]:
    """Return the training rows, then their variations; outliers belong to CLINC150."""
    rng = generator(settings.seed)
    items = [Item(row.text, split.task, row.label) for split in splits for row in split.train]
    for split in splits:
        texts = [row.text for row in split.train]
        near_by = [vary(text, rng, near) for text in texts for _ in range(settings.variants)]
        items += [Item(text, split.task, "") for text in near_by]
        items += [Item(text, split.task, "") for text in splices(texts, settings.splices, rng)]
        items += _twins(split, settings.twins, rng, near)
        if split.task == "clinc150":
            asked = questions(settings.questions, settings.seed + 1)
            items += [Item(text, split.task, OOS) for text in asked]
            empty = hollow(split.train, words, settings.hollow, settings.seed + 2)
            items += [Item(text, split.task, "") for text in empty]
    return list(dict.fromkeys(items))


def _twins(split: Split, count: int, rng: random.Random, near: Neighbours) -> list[Item]:
    """Return varied splices of two sentences with the same label."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for row in split.train:
        by_label[row.label].append(row.text)
    result = []
    for row in split.train:
        for _ in range(count):
            text = splice(row.text, rng.choice(by_label[row.label]), rng)
            result.append(Item(vary(text, rng, near), split.task, ""))
    return result


def join(parts: Sequence[Sequence[Item]], known: set[Item]) -> list[Item]:
    """Return one pool made of several: all training rows first, then sentences that are not `known`."""
    given = [item for part in parts for item in part[: _given(part)]]
    rest = (item for part in parts for item in part[_given(part) :] if item not in known)
    return list(dict.fromkeys([*given, *rest]))


def _given(items: Sequence[Item]) -> int:
    return next((i for i, item in enumerate(items) if not item.label), len(items))


def save(items: Sequence[Item], path: Path) -> None:
    """Write one line of JSON per item."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in items), encoding="utf-8")


def restore(path: Path) -> list[Item]:
    """Read what `save` wrote."""
    return [Item(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
