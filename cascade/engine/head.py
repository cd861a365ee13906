"""A learned head: from an encoder's vector and the text itself to labels, P(correct), and how known it is.

The head is linear: its logits are a matrix times the vector, plus a sum over the text's n-grams. What comes
after is calibration, learned from cross-fitted scores (`cascade.lab.fitting.fit`). NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.ngrams import CHARACTERS, WORD, count_ngrams
from cascade.errors import ModelError

Column = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
VERSION = 1
SIGNALS = ("top", "margin", "known")  # of which confidence is made, besides a constant
_EPSILON = 1e-6
_LEAST, _MOST = 1e-4, 1.0 - 1e-4  # of a confidence
# Name of an array → type, and what its dimensions count; those that are equal must be equally long.
_SHAPES: dict[str, tuple[type[np.generic], tuple[str, ...]]] = {
    "weights": (np.float32, ("labels", "vector")),
    "bias": (np.float32, ("labels",)),
    "ngram_keys": (np.uint32, ("ngrams",)),
    "ngram_idf": (np.float32, ("ngrams",)),
    "ngram_weights": (np.int8, ("ngrams", "labels")),
    "ngram_scales": (np.float32, ("labels",)),
    "means": (np.int8, ("labels", "reduced")),
    "mean_scales": (np.float32, ("labels",)),
    "whitening": (np.float32, ("reduced", "vector")),
    "centre": (np.float32, ("vector",)),
    "known_at": (np.float32, ("quantiles",)),
    "confidence_at": (np.float32, ("knots",)),
    "confidence": (np.float32, ("knots",)),
}


class HeadAnswer(NamedTuple):
    """What a head says of a text.

    Attributes:
        probabilities: of the labels, in their order; they sum to 1.
        confidence: the calibrated probability that the first label is right, between 0 and 1, both excluded.
        known: the share of training rows that looked no more like the training rows than this text does.
    """

    probabilities: Column
    confidence: float
    known: float


class Raw(NamedTuple):
    """What a head computes before calibration, for several texts.

    Attributes:
        logits: shape (texts, labels).
        known: higher for what looks like training rows; on no particular scale.
    """

    logits: Matrix
    known: Column


@dataclass(frozen=True, eq=False)
class Head:
    """A learned head.

    Attributes:
        labels: the closed set of answers.
        settings: what is not an array, as plain JSON.
        arrays: the numbers, by name.
    """

    labels: tuple[str, ...]
    settings: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]

    @classmethod
    def read(
        cls, labels: Sequence[str], settings: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> Head:
        """Return a head from what a file holds.

        Raises:
            ModelError: it is of another version, or numbers are missing, broken or do not fit together.
        """
        if settings.get("version") != VERSION:
            raise ModelError(
                f"its head has version {settings.get('version')!r}, expected {VERSION}; learn it again"
            )
        checked = _check_arrays(arrays, len(labels))
        weights = settings.get("confidence_weights")
        expected = len(SIGNALS) + 1
        if not isinstance(weights, list) or len(weights) != expected or not np.isfinite(weights).all():
            raise ModelError(f"its head's confidence_weights are {weights!r}, expected {expected} numbers")
        return cls(tuple(labels), dict(settings), checked)

    @property
    def size(self) -> int:
        """The dimension of the vectors that it takes."""
        return int(self.arrays["weights"].shape[1])

    def answer(self, vector: Matrix, text: str) -> HeadAnswer:
        """Answer one text.

        Args:
            vector: the text's unit vector by the encoder, shape (size,).
            text: the text.

        Raises:
            ModelError: the vector is not finite or has another size.
        """
        if vector.shape != (self.size,) or not np.isfinite(vector).all():
            raise ModelError(
                f"its head takes finite vectors of {self.size} numbers, got shape {vector.shape}"
            )
        raw = self.raw(vector[None], [text])
        probabilities = softmax(raw.logits)
        known = self.known(raw.known)
        confidence = self.confidence(signals(probabilities, known))
        return HeadAnswer(probabilities[0], float(confidence[0]), float(known[0]))

    def raw(self, vectors: Matrix, texts: Sequence[str]) -> Raw:
        """Return logits and the raw score of the unknown."""
        logits = vectors @ self.arrays["weights"].T + self.arrays["bias"]
        if len(self.arrays["ngram_keys"]):
            logits = logits + self._ngram_logits(texts)
        return Raw(logits.astype(np.float32), self._nearness(vectors))

    def known(self, raw: Column) -> Column:
        """Return the rank of raw scores of the unknown among those of training rows, 0 to 1."""
        at = self.arrays["known_at"]
        return np.asarray(np.interp(raw, at, np.linspace(0.0, 1.0, len(at))), dtype=np.float64)

    def confidence(self, columns: Column) -> Column:
        """Return P(correct) for `signals`: a logistic model, and a monotone curve on top of it."""
        weights = np.asarray(self.settings["confidence_weights"])
        score = columns @ weights[1:] + weights[0]
        value = np.interp(score, self.arrays["confidence_at"], self.arrays["confidence"])
        return np.asarray(np.clip(value, _LEAST, _MOST), dtype=np.float64)

    def _nearness(self, vectors: Matrix) -> Column:
        """Return the negated Mahalanobis distance to the nearest label's mean (K. Lee et al. 2018)."""
        reduced = (vectors - self.arrays["centre"]) @ self.arrays["whitening"].T
        distances = (
            np.square(reduced).sum(axis=1, dtype=np.float64)[:, None]
            - 2.0 * reduced.astype(np.float64) @ self._means.T
            + np.square(self._means).sum(axis=1)
        )
        return np.asarray(-np.sqrt(np.maximum(distances.min(axis=1), 0.0)), dtype=np.float64)

    @cached_property
    def _means(self) -> Column:
        scales = self.arrays["mean_scales"][:, None].astype(np.float64)
        return np.asarray(self.arrays["means"] * scales, dtype=np.float64)

    def _ngram_logits(self, texts: Sequence[str]) -> Matrix:
        found = ngram_features(texts, self.arrays["ngram_keys"], self.arrays["ngram_idf"])
        out = np.zeros((len(texts), len(self.labels)), np.float32)
        for row in range(len(texts)):
            part = slice(found.starts[row], found.starts[row + 1])
            out[row] = found.values[part] @ self.arrays["ngram_weights"][found.columns[part]].astype(
                np.float32
            )
        return np.asarray(out * self.arrays["ngram_scales"], dtype=np.float32)


class Features(NamedTuple):
    """Weighted n-grams of texts, as a sparse matrix by rows."""

    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: Matrix


def ngram_features(texts: Sequence[str], keys: npt.NDArray[np.uint32], idf: Matrix) -> Features:
    """Return tf-idf weights of the n-grams in `keys`; words and characters each have length 1.

    Term frequency counts as 1 + log (C. D. Manning et al., "Introduction to Information Retrieval", 2008,
    chapter 6).

    Args:
        texts: the texts.
        keys: the known n-grams, in ascending order.
        idf: the inverse document frequency of each.
    """
    counted = count_ngrams(texts)
    place = np.searchsorted(keys, counted.keys)
    place[place == len(keys)] = 0
    kept = keys[place] == counted.keys if len(keys) else np.zeros(len(place), np.bool_)
    rows = np.repeat(np.arange(len(texts)), np.diff(counted.starts))[kept]
    columns = place[kept]
    values = (1.0 + np.log(counted.counts[kept])) * idf[columns]
    kinds = (keys[columns] & np.uint32(1)).astype(np.int64)
    for kind in (WORD, CHARACTERS):
        own = kinds == kind
        lengths = np.sqrt(np.bincount(rows[own], values[own] ** 2, minlength=len(texts)))
        values[own] /= np.maximum(lengths, _EPSILON)[rows[own]]
    starts = np.searchsorted(rows, np.arange(len(texts) + 1))
    return Features(starts.astype(np.int64), columns.astype(np.int64), values.astype(np.float32))


def softmax(logits: Matrix) -> Column:
    """Return probabilities, shape (texts, labels)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    weight = np.exp(shifted)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float64)


def signals(probabilities: Column, known: Column) -> Column:
    """Return what confidence is made of, shape (texts, `SIGNALS`): all rise with the chance to be right."""
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    first, second = np.clip(best[:, 1], _EPSILON, 1 - _EPSILON), np.maximum(best[:, 0], _EPSILON)
    rank = np.clip(known, 0.5 / 1000, 1.0)
    return np.column_stack([np.log(first / (1.0 - first)), np.log(first / second), np.log(rank)])


def _check_arrays(arrays: Mapping[str, npt.NDArray[Any]], labels: int) -> dict[str, npt.NDArray[Any]]:
    sizes, checked = {"labels": labels}, {}
    for name, (kind, dimensions) in _SHAPES.items():
        if name not in arrays:
            raise ModelError(f"its head has no array {name!r}; learn it again")
        array = np.asarray(arrays[name])
        if array.dtype != kind or array.ndim != len(dimensions):
            raise ModelError(
                f"its head's array {name!r} is {array.dtype} of {array.ndim} dimensions, "
                f"expected {np.dtype(kind)} of {len(dimensions)}; learn it again"
            )
        for dimension, size in zip(dimensions, array.shape, strict=True):
            if sizes.setdefault(dimension, size) != size:
                raise ModelError(
                    f"its head's array {name!r} has {size} {dimension}, expected {sizes[dimension]}; "
                    "learn it again"
                )
        if not np.isfinite(array).all():
            raise ModelError(f"its head's array {name!r} has numbers that are not finite; learn it again")
        checked[name] = array
    if labels < 2 or not sizes["vector"] or not sizes["quantiles"] or not sizes["knots"]:
        raise ModelError(f"its head has {sizes}; expected at least two labels and no empty array")
    for name in ("ngram_keys", "known_at", "confidence_at", "confidence"):
        if (np.diff(checked[name].astype(np.float64)) < 0).any():
            raise ModelError(f"its head's array {name!r} does not rise; learn it again")
    return checked
