"""Confidence `hedging`: an answer that says "maybe" is less sure than one that does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from cascade.spec import ConfidenceSettings, Draft

HEDGES = ("maybe", "perhaps", "probably", "not sure", "I think")


class HedgingConfidence(ConfidenceSettings):
    """Confidence from how often an answer hedges; calibrate it before you trust its size."""

    by: Literal["hedging"]
    words: list[Annotated[str, Field(min_length=1)]] = Field(default=[*HEDGES])
    """Words and phrases that hedge, matched as whole words without regard to case."""

    def signals(self, draft: Draft) -> Mapping[str, float]:
        """Return the score 1 / (1 + n) of an answer with n hedges."""
        pattern = rf"\b(?:{'|'.join(map(re.escape, self.words))})\b"
        return {self.signal_name: 1 / (1 + len(re.findall(pattern, draft.text, re.IGNORECASE)))}
