"""Confidence from how many drafts (samples, models) give the same answer."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from cascade.confidence import validity
from cascade.spec.kinds import ConfidenceSettings, Draft


class AgreementConfidence(ConfidenceSettings):
    """Confidence from the share of drafts (samples, models) that give the same answer."""

    by: Literal["agreement"]

    @property
    def min_drafts(self) -> int:
        """A single draft agrees with itself."""
        return 2

    def measure(self, drafts: Sequence[Draft | None]) -> list[tuple[int, Mapping[str, float]]]:
        """Return the majority's first draft; empty without two answers."""
        voted = vote([validity.canonical(draft) if draft is not None else None for draft in drafts])
        return [] if voted is None else [voted]

    def lowest_score(self, label_counts: Sequence[int], drafts: int) -> float:
        """Return the share of a single draft."""
        return 1 / max(1, drafts)


def normalise(text: str) -> str:
    """Return `text` in the form in which answers are compared: NFKC, case and white space ignored."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def vote(answers: Sequence[str | None]) -> tuple[int, dict[str, float]] | None:
    """Return the index of the majority's first answer and the vote's signals, or None without two answers.

    agreement: share of all asked drafts in the largest group of equal answers. margin: that minus the
    second largest group's share. A failed draft (None, or blank) counts as asked and agrees with nobody,
    so failures never raise agreement. Of equally large groups the one that answered first wins.
    """
    keys = [normalise(answer) if answer else "" for answer in answers]
    groups = Counter(key for key in keys if key)
    if groups.total() < 2:
        return None
    ranked = groups.most_common(2)
    largest = ranked[0][1]
    second = ranked[1][1] if len(ranked) > 1 else 0
    shares = {"agreement": largest / len(keys), "margin": (largest - second) / len(keys)}
    return keys.index(ranked[0][0]), shares
