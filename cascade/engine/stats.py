"""What one logits row says about the token that was chosen from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class TokenStats(NamedTuple):
    """All in nats, of the softmax over the whole vocabulary, before any sampler.

    `margin` is the log-probability of the best token minus that of the second best.
    """

    logprob: float
    margin: float
    entropy: float


class RowStats:
    """Computes `TokenStats` in one pass over a row, with buffers that are allocated once."""

    def __init__(self, n_vocab: int) -> None:
        self._shifted = np.empty(n_vocab, np.float32)
        self._exp = np.empty(n_vocab, np.float32)

    def __call__(self, row: FloatArray, chosen: int) -> TokenStats:
        """Return the statistics of token `chosen` in logits `row`, shape (vocabulary,)."""
        best = int(row.argmax())
        np.subtract(row, row[best], out=self._shifted)
        np.exp(self._shifted, out=self._exp)
        total = float(self._exp.sum())
        log_total = math.log(total)
        logprob = float(self._shifted[chosen]) - log_total
        entropy = log_total - float(self._exp @ self._shifted) / total
        self._shifted[best] = -np.inf
        margin = -float(self._shifted.max()) if len(row) > 1 else math.inf
        # Rounding may leave them a hair on the wrong side of zero.
        return TokenStats(min(0.0, logprob), margin, max(0.0, entropy))
