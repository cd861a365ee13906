"""Features of a prompt and of what models answered so far: what a policy's learned scores are made of.

Every feature can be computed for one request as well as for a table, with numpy alone. A feature that
cannot be computed (a missing signal, no text) is NaN, and so is every score that needs it.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cascade.policy.artifact import Feature, Term
from cascade.policy.table import Column, Outcomes

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_EDGE = 1e-6  # a confidence of 0 or 1 has no finite logit
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def _log(count: int) -> float:
    return math.log1p(count)


# `artifact.SHAPE_NAMES`: each is a number that one reading of the text gives, cheap next to any model call.
SHAPES: dict[str, Callable[[str], float]] = {
    "chars": lambda text: _log(len(text)),
    "words": lambda text: _log(len(text.split())),
    "lines": lambda text: _log(text.count("\n")),
    "numbers": lambda text: _log(len(_NUMBER.findall(text))),
    "longest_number": lambda text: float(max(map(len, _NUMBER.findall(text)), default=0)),
    "symbols": lambda text: sum(not c.isalnum() and not c.isspace() for c in text) / max(1, len(text)),
}


def same_answer(text: str) -> str:
    """Return `text` as answers are compared: Unicode NFKC, without regard to case or to white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def term_values(term: Term, features: Features) -> Column:
    """Return what `term` weighs on each row; NaN where its feature is missing."""
    column = features.column(term.feature)
    return column if term.above is None else np.asarray(np.maximum(column - term.above, 0.0))


def features_of(outcomes: Outcomes) -> Features:
    """Return the features of a table, the same object each time."""
    features = outcomes.memo.get("features")
    if not isinstance(features, Features):
        features = outcomes.memo["features"] = Features(outcomes)
    return features


class Features:
    """Computes features of one table, each thing once; of rows of another table what that one knows."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._columns: dict[Feature, Column] = {}
        self._answers: dict[str, NDArray[np.intp]] = {}
        self._codes: dict[str, int] = {}
        self._hashed: dict[tuple[str | None, int], tuple[NDArray[np.intp], NDArray[np.intp]]] = {}
        self._buckets: dict[tuple[str | None, int], list[list[int]]] = {}

    def column(self, feature: Feature) -> Column:
        """Return one value a row; NaN where it cannot be known."""
        if feature not in self._columns:
            self._columns[feature] = self._compute(feature)
        return self._columns[feature]

    def matrix(self, features: Sequence[Feature]) -> NDArray[np.float64]:
        """Return rows × features."""
        if not features:
            return np.zeros((len(self._outcomes), 0))
        return np.column_stack([self.column(feature) for feature in features])

    def words(self, model: str | None, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return (row, bucket) of each distinct word and pair of words of prompts, or of `model`'s answers.

        Words are hashed into `size` buckets (Weinberger et al. 2009), so no vocabulary has to be stored.
        """
        key = (model, size)
        if key not in self._hashed:
            buckets_of = self._all_buckets(model, size)
            rows = np.repeat(np.arange(len(buckets_of)), [len(each) for each in buckets_of])
            flat = np.fromiter((bucket for each in buckets_of for bucket in each), np.intp, len(rows))
            self._hashed[key] = (rows, flat)
        return self._hashed[key]

    def _all_buckets(self, model: str | None, size: int) -> list[list[int]]:
        if (model, size) not in self._buckets:
            parent = self._outcomes.parent
            if parent is None:
                buckets_of = [buckets(text, size) for text in self._texts(model)]
            else:
                known = features_of(parent[0])._all_buckets(model, size)
                buckets_of = [known[row] for row in parent[1]]
            self._buckets[model, size] = buckets_of
        return self._buckets[model, size]

    def unread(self, model: str | None) -> NDArray[np.bool_]:
        """Return where there is no prompt, or no answer of `model`."""
        return np.array([text is None for text in self._texts(model)], dtype=bool)

    def _texts(self, model: str | None) -> Sequence[str | None]:
        if model is None:
            return self._outcomes.prompts
        return self._outcomes.models[model].texts or [None] * len(self._outcomes)

    def _compute(self, feature: Feature) -> Column:
        parent = self._outcomes.parent
        if parent is not None:
            return features_of(parent[0]).column(feature)[parent[1]]
        if feature.kind == "agreement":
            ours, theirs = self._answer_codes(feature.model or ""), self._answer_codes(feature.other or "")
            known = (ours >= 0) & (theirs >= 0)
            return np.where(known, (ours == theirs).astype(float), np.nan)
        if feature.kind == "votes":
            return self._votes(feature)
        if feature.kind in ("signal", "confidence"):
            outcomes = self._outcomes.models[feature.model or ""]
            missing = np.full(len(self._outcomes), np.nan)
            if feature.kind == "confidence":
                sure = np.clip(outcomes.confidence, _EDGE, 1.0 - _EDGE)
                return np.asarray(np.log(sure / (1.0 - sure)))
            return outcomes.signals.get(feature.name or "", missing)
        shape = SHAPES[feature.name or ""]
        texts = self._texts(feature.model)
        return np.array([math.nan if text is None else shape(text) for text in texts], dtype=float)

    def _votes(self, feature: Feature) -> Column:
        ours = self._answer_codes(feature.model or "")
        theirs = np.column_stack([self._answer_codes(name) for name in feature.among])
        if feature.name == "for":
            votes = (theirs == ours[:, None]).sum(axis=1)
        elif feature.name == "against":
            alike = theirs[:, :, None] == theirs[:, None, :]
            votes = (alike.sum(axis=2) * (theirs != ours[:, None])).max(axis=1)
        else:
            ordered = np.sort(np.column_stack([ours, theirs]), axis=1)
            votes = 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1)
        unknown = (ours < 0) | (theirs < 0).any(axis=1)
        return np.where(unknown, np.nan, votes.astype(float))

    def _answer_codes(self, model: str) -> NDArray[np.intp]:
        """Number the distinct answers; −1 where there is none."""
        if model not in self._answers:
            # A blank answer agrees with nobody, so each model's blanks get a key that no answer has.
            keys = [
                None if text is None else same_answer(text) or f"\0{model}" for text in self._texts(model)
            ]
            codes = [-1 if key is None else self._codes.setdefault(key, len(self._codes)) for key in keys]
            self._answers[model] = np.array(codes, dtype=np.intp)
        return self._answers[model]


def buckets(text: str | None, size: int) -> list[int]:
    """Return the distinct hash buckets of a text's words and pairs of neighbouring words; none for None."""
    words = [word.casefold() for word in _WORD.findall(text or "")]
    terms = {*words, *(f"{left} {right}" for left, right in pairwise(words))}
    return sorted({zlib.crc32(term.encode()) % size for term in terms})
