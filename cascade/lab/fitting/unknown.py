"""The score of the unknown: how much a text looks like the rows that a head learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
_SHRINKAGE = 0.8  # of the covariance within labels towards a multiple of the identity


def fit_nearness(vectors: Matrix, target: Indices, labels: int) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a head's nearness: label means in a space where the spread within labels is round.

    Args:
        vectors: unit vectors, shape (rows, dimensions).
        target: index of each row's label.
        labels: number of labels; each has a row.
    """
    centre = vectors.mean(axis=0, dtype=np.float64)
    count = np.maximum(np.bincount(target, minlength=labels), 1)
    sums = np.zeros((labels, vectors.shape[1]))
    np.add.at(sums, target, vectors.astype(np.float64) - centre)
    means = sums / count[:, None]
    within = vectors - centre - means[target]
    covariance = within.T @ within / len(vectors)
    level = float(np.trace(covariance)) / len(covariance)
    covariance = (1 - _SHRINKAGE) * covariance + (_SHRINKAGE * level + 1e-6) * np.eye(len(covariance))
    values, axes = np.linalg.eigh(covariance)
    whitening = (axes / np.sqrt(values)).T
    reduced = means @ whitening.T
    scales = np.maximum(np.abs(reduced).max(axis=1), 1e-6) / 127.0
    return {
        "centre": centre.astype(np.float32),
        "whitening": whitening.astype(np.float32),
        "means": np.rint(reduced / scales[:, None]).astype(np.int8),
        "mean_scales": scales.astype(np.float32),
    }
