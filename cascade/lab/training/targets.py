"""What a student should answer: the teachers' mean, moved towards the true label if there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascade.lab.training.datasets import DESK
from cascade.lab.training.pool import Item

Marks = tuple[dict[str, Any], Any]


@dataclass(slots=True)
class Targets:
    """What a student should answer to each item.

    Attributes:
        tasks: each item's task.
        rows: task → distributions over its labels, shape (items of the task, labels).
        where: each item's row in the `rows` of its task.
        desks: each item's desk label.
        vectors: the teacher's sentence vectors, shape (items, width).
        labelled: whether each item has a true label.
    """

    tasks: list[str]
    rows: dict[str, Any]
    where: Any
    desks: Any
    vectors: Any
    labelled: Any


def softmax(logits: Any) -> Any:
    """Return the softmax of each row, as float32."""
    shifted = np.exp(logits.astype(np.float32) - logits.max(1, keepdims=True).astype(np.float32))
    return shifted / shifted.sum(1, keepdims=True)


def load_marks(path: Path) -> Marks:
    """Return one teacher's labels of a pool: logits per task, and sentence vectors."""
    with np.load(path) as data:
        return {key: data[key] for key in data.files if key != "vectors"}, data["vectors"]


def build(
    items: Sequence[Item], marks: Sequence[Marks], labels: Mapping[str, list[str]], trust: float = 0.5
) -> Targets:
    """Average the teachers' distributions; items with a label move `trust` of the way towards it."""
    tasks = [item.task for item in items]
    where = np.zeros(len(items), np.int64)
    rows: dict[str, Any] = {}
    for task in dict.fromkeys(tasks):
        mine = [i for i, name in enumerate(tasks) if name == task]
        where[mine] = np.arange(len(mine))
        mean = np.mean([softmax(logits[task][mine]) for logits, _ in marks], axis=0)
        index = {label: k for k, label in enumerate(labels[task])}
        hard = [(r, index[items[i].label]) for r, i in enumerate(mine) if items[i].label]
        at = np.array([r for r, _ in hard])
        mean[at] *= 1 - trust
        mean[at, [k for _, k in hard]] += trust
        rows[task] = mean.astype(np.float16)
    desks = np.array([sorted(DESK.values()).index(DESK[task]) for task in tasks])
    rows_given = next((i for i, item in enumerate(items) if not item.label), len(items))
    return Targets(tasks, rows, where, desks, marks[0][1], np.arange(len(items)) < rows_given)


def join(first: Targets, second: Targets) -> Targets:
    """Join two pools with different tasks."""
    return Targets(
        first.tasks + second.tasks,
        {**first.rows, **second.rows},
        np.concatenate([first.where, second.where]),
        np.concatenate([first.desks, second.desks]),
        np.concatenate([first.vectors, second.vectors]),
        np.concatenate([first.labelled, second.labelled]),
    )
