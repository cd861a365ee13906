"""The two views of a text that a head is made of: the encoder's vector, and weighted n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.head import ngram_features
from cascade.engine.ngrams import count_ngrams

Matrix = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint32]
_WEIGHTS = 1_000_000  # n-grams × labels at most: bytes in the file, and time of a fit
_NGRAMS = 200_000
_RANK = 1e-5  # of the largest eigenvalue
_FEW_ROWS = 1_000  # among as few, an n-gram of a single row counts


def choose_ngrams(texts: Sequence[str], labels: int) -> tuple[Keys, Matrix]:
    """Return the n-grams to look at, in ascending order, and the inverse document frequency of each.

    Those of more rows come first; those of one row alone are left out, unless there are few rows.
    """
    keys, frequency = np.unique(count_ngrams(texts).keys, return_counts=True)
    kept = np.flatnonzero(frequency >= (1 if len(texts) <= _FEW_ROWS else 2))
    most = min(_NGRAMS, _WEIGHTS // labels)
    kept = np.sort(kept[np.argsort(-frequency[kept], kind="stable")[:most]])
    idf = np.log((1.0 + len(texts)) / (1.0 + frequency[kept])) + 1.0
    return keys[kept], idf.astype(np.float32)


def ngram_matrix(texts: Sequence[str], keys: Keys, idf: Matrix) -> Any:
    """Return the weights of n-grams in texts as a sparse matrix, shape (texts, n-grams)."""
    from scipy.sparse import csr_matrix

    found = ngram_features(texts, keys, idf)
    shape = (len(texts), len(keys))
    return csr_matrix((found.values, found.columns.astype(np.int32), found.starts), shape=shape)


class Compact(NamedTuple):
    """A matrix of few rows in as few columns: inner products of rows are the same.

    A penalised linear fit on the columns is therefore the fit on the matrix.

    Attributes:
        columns: shape (rows, rank).
        back: shape (n-grams, rank): weights on the n-grams are it times weights on the columns.
    """

    columns: Matrix
    back: Matrix


def compact(matrix: Any) -> Compact:
    """Return a sparse matrix of few rows by the eigenvectors of its inner products."""
    values, axes = np.linalg.eigh((matrix @ matrix.T).toarray().astype(np.float64))
    kept = values > _RANK * max(float(values[-1]), _RANK)
    root = np.sqrt(values[kept])
    axes = axes[:, kept]
    return Compact((axes * root).astype(np.float32), matrix.T @ (axes / root).astype(np.float32))


def packed(weights: Matrix) -> tuple[npt.NDArray[np.int8], Matrix]:
    """Return weights (n-grams, labels) in 8 bits, and what each label's column is multiplied with."""
    scales = np.maximum(np.abs(weights).max(axis=0, initial=0.0), 1e-12) / 127.0
    return np.rint(weights / scales).astype(np.int8), scales.astype(np.float32)
