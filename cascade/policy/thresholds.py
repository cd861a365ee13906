"""The one comparison of scores with thresholds: live, in replays, on tables and in tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from cascade.policy.table import Column, Mask


@overload
def reaches(score: float, threshold: float) -> bool: ...
@overload
def reaches(score: Column, threshold: float) -> Mask: ...
def reaches(score: float | Column, threshold: float) -> bool | Mask:
    """Return whether `score` is at or above `threshold`.

    Everything reaches −inf, also what has no score (NaN), and nothing reaches inf. NaN reaches nothing else.
    """
    return (score >= threshold) | (threshold == -math.inf)


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a chain of stages, the first model first.

    Attributes:
        accept: per stage, accept a score at or above it; −inf accepts every answer, inf none.
        abstain: per stage, give up below it; empty if a run may not abstain.
        skip_at: rows whose gate score is at or above it start at a later stage.
    """

    accept: tuple[float, ...]
    abstain: tuple[float, ...] = ()
    skip_at: float = math.inf

    def accepts(self, stage: int, score: Column) -> Mask:
        """Return where the answers of a stage are accepted; failed calls have none."""
        return reaches(score, self.accept[stage])

    def abstains(self, stage: int, score: Column) -> Mask:
        """Return where a stage gives up on what it does not accept; nowhere without a score (NaN)."""
        return score < (self.abstain[stage] if self.abstain else -math.inf)

    def skips(self, gate_score: Column) -> Mask:
        """Return where the first stages are passed over; nowhere without a score (NaN)."""
        return gate_score >= self.skip_at
