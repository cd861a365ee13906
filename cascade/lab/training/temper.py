"""One temperature per task, fitted on val and folded into the label tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cascade.lab.training.datasets import Split
from cascade.lab.training.model import Student
from cascade.lab.training.train import probabilities
from cascade.lab.training.vocab import Vocabulary

GRID = np.geomspace(0.4, 2.5, 64)


def temperature(probability: Any, truth: Any) -> float:
    """Return the temperature with the smallest log loss."""
    logits = np.log(np.maximum(probability, 1e-12))

    def loss(value: float) -> float:
        scaled = logits / value
        norm = np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1)) + scaled.max(1)
        return float(np.mean(norm - scaled[np.arange(len(truth)), truth]))

    return float(min(GRID, key=loss))


def fold(student: Student, vocabulary: Vocabulary, splits: Mapping[str, Split]) -> dict[str, float]:
    """Divide each task's label embeddings by its temperature on val, which changes no ranking."""
    temperatures = {}
    for task, split in splits.items():
        names = vocabulary.tasks[task]
        out = probabilities(student, vocabulary, task, [row.text for row in split.val])
        truth = np.array([names.index(row.label) for row in split.val])
        temperatures[task] = temperature(out, truth)
        with torch.no_grad():
            student.token_embd.weight[vocabulary.label_ids(task)] /= temperatures[task]
    student.eval()
    return temperatures
