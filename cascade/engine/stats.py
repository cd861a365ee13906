"""What a logits row says about the token chosen from it, and what the tokens of a text say so far."""

from __future__ import annotations

import math
from bisect import insort
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.errors import ModelError

NOT_FINITE = "NaN or infinity in its output; the weights are broken, download or export it again"


def check_finite(rows: npt.NDArray[np.float32]) -> None:
    """Raise ModelError if a logit is NaN or infinite (`max` and `min` pass a NaN on)."""
    if not (np.isfinite(rows.max()) and np.isfinite(rows.min())):
        raise ModelError(NOT_FINITE)


FloatArray = npt.NDArray[np.float32]
_BLOCK = 64  # for the best k: a row's maxima over blocks are far fewer than the row
_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


class TokenStats(NamedTuple):
    """All in nats, of the softmax over the whole vocabulary, before any sampler.

    `margin` is the log-probability of the best token minus that of the second best.
    """

    logprob: float
    margin: float
    entropy: float


class RowStats:
    """Computes `TokenStats` in one pass over a row, with buffers that are allocated once.

    Attributes:
        best: the most probable token of the row that was read last, the first of equals.
    """

    def __init__(self, n_vocab: int) -> None:
        self._shifted = np.empty(n_vocab, np.float32)
        self._exp = np.empty(n_vocab, np.float32)
        self.best = 0
        self._log_total = self._margin = self._entropy = 0.0

    def __call__(self, row: FloatArray, chosen: int) -> TokenStats:
        """Return the statistics of token `chosen` in logits `row`, shape (vocabulary,).

        Raises:
            ModelError: a logit is NaN or infinite.
        """
        self.read(row)
        return self.of(chosen)

    def read(self, row: FloatArray) -> None:
        """Take in a logits row, shape (vocabulary,).

        Raises:
            ModelError: a logit is NaN or infinite.
        """
        shifted = self._shifted
        best = self.best = int(row.argmax())  # of a NaN, if there is one
        if not (math.isfinite(row[best]) and math.isfinite(row.min())):
            raise ModelError(NOT_FINITE)
        np.subtract(row, row[best], out=shifted)
        np.exp(shifted, out=self._exp)
        total = float(np.add.reduce(self._exp))  # `sum` is the same behind a Python function
        self._log_total = math.log(total)
        # Rounding may leave it a hair on the wrong side of zero.
        self._entropy = max(0.0, self._log_total - float(self._exp @ shifted) / total)
        shifted[best] = -np.inf
        self._margin = -float(shifted.max()) if len(row) > 1 else math.inf
        shifted[best] = 0.0

    def of(self, chosen: int) -> TokenStats:
        """Return the statistics of token `chosen` in the row that was read last."""
        logprob = min(0.0, float(self._shifted[chosen]) - self._log_total)
        return TokenStats(logprob, self._margin, self._entropy)


def best_tokens(row: FloatArray, count: int) -> list[tuple[int, float]]:
    """Return (token, log-probability) of the `count` most probable tokens of a logits row, best first.

    Only the blocks with the largest maxima can hold them, so the vocabulary is never sorted.
    """
    size = len(row)
    count = min(count, size)
    whole = size - size % _BLOCK
    tokens = np.arange(size)
    if whole > _BLOCK * count:
        maxima = row[:whole].reshape(-1, _BLOCK).max(axis=1)
        blocks = np.argpartition(-maxima, count - 1)[:count]
        inside = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        tokens = np.append(inside, np.arange(whole, size))
    values = row[tokens]
    order = np.lexsort((tokens, -values))[:count]
    best = float(row.max())
    log_total = best + math.log(float(np.exp(row - best).sum()))
    return [(int(tokens[i]), float(values[i]) - log_total) for i in order]


class RunningStats:
    """Statistics of the tokens generated so far: exact, from sorted lists, not an approximation.

    Attributes:
        count: tokens so far.
        last: the newest token's statistics.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last = TokenStats(0.0, 0.0, 0.0)
        self._sorted: dict[str, list[float]] = {name: [] for name in TokenStats._fields}

    def add(self, stats: TokenStats) -> None:
        """Take a token in."""
        self.count += 1
        self.last = stats
        for values, value in zip(self._sorted.values(), stats, strict=True):
            insort(values, value)

    def mean(self, name: str = "logprob") -> float:
        """Return the mean of `logprob`, `margin` or `entropy` over the tokens."""
        return math.fsum(self._sorted[name]) / self.count

    def quantile(self, share: float, name: str = "logprob") -> float:
        """Return the smallest value of `name` that at least `share` of the tokens do not exceed."""
        values = self._sorted[name]
        return values[max(0, math.ceil(share * len(values)) - 1)]

    def summary(self) -> dict[str, dict[str, float]]:
        """Return mean, least, largest and three quantiles of each statistic, in nats."""
        return {
            name: {
                "mean": self.mean(name),
                "min": values[0],
                **{key: self.quantile(share, name) for key, share in _QUANTILES.items()},
                "max": values[-1],
            }
            for name, values in self._sorted.items()
            if values
        }


_FAST_NOISE = 0.07  # nats; 0.065 was the largest difference
_REPRODUCIBLE_NOISE = 0.0  # every request is decoded by itself, in the same way each time


def numerical_noise(*, reproducible: bool, tokens: int) -> float:
    """Return the nats by which numerical noise may move the log-probability of `tokens` tokens together."""
    return (_REPRODUCIBLE_NOISE if reproducible else _FAST_NOISE) * tokens
