"""Statistics of one logits row, of a text so far, and the numerical noise in them."""

from __future__ import annotations

import math
from bisect import insort
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.errors import ModelError

FloatArray = npt.NDArray[np.float32]

# llama.cpp reports success for logits that are not numbers.
NOT_FINITE = "NaN or infinity in its output; the weights are broken, download or export it again"
_BLOCK = 64  # `best_tokens` looks at one maximum for each block of so many logits
_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
# The largest differences of any token's log-probability between a prompt decoded alone, among others, in
# chunks, and after a copied prefix, and of a label's, per token, in a tree and alone. Measured on the
# bundled experts (Q8_0) and on random weights of 4 M, 135 M (Q8_0) and 0.5 B (Q4_0) parameters;
# docs/engine.md has the figures. Other models may differ.
_FAST_NOISE = 0.07  # nats; the largest measured difference was 0.065
_REPRODUCIBLE_NOISE = 0.0  # each request is decoded alone, in the same way each time


def check_finite(rows: FloatArray) -> None:
    """Raise ModelError if a logit is NaN or infinite; `max` and `min` propagate a NaN."""
    if not (np.isfinite(rows.max()) and np.isfinite(rows.min())):
        raise ModelError(NOT_FINITE)


def numerical_noise(*, reproducible: bool, tokens: int) -> float:
    """Return by how many nats noise may shift the log-probability of `tokens` tokens together.

    llama.cpp's sums depend on what else is in a decode.
    """
    return (_REPRODUCIBLE_NOISE if reproducible else _FAST_NOISE) * tokens


class TokenStats(NamedTuple):
    """Statistics of one token in nats, from the softmax over the whole vocabulary, before any sampler.

    Attributes:
        logprob: log-probability of the token.
        margin: log-probability of the best token minus that of the second best.
        entropy: entropy of the distribution.
    """

    logprob: float
    margin: float
    entropy: float


class RowStats:
    """Computes `TokenStats` in one pass over a logits row, in buffers that are allocated once.

    Attributes:
        best: the most probable token of the last row read; the first among equals.
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
        """Read a logits row, shape (vocabulary,), for `best` and `of`.

        Raises:
            ModelError: a logit is NaN or infinite.
        """
        shifted = self._shifted
        best = self.best = int(row.argmax())  # the position of a NaN, if any
        if not (math.isfinite(row[best]) and math.isfinite(row.min())):
            raise ModelError(NOT_FINITE)
        np.subtract(row, row[best], out=shifted)
        np.exp(shifted, out=self._exp)
        total = float(np.add.reduce(self._exp))  # `sum` adds a Python call to it
        self._log_total = math.log(total)
        # Rounding may leave it a hair on the wrong side of zero.
        self._entropy = max(0.0, self._log_total - float(self._exp @ shifted) / total)
        shifted[best] = -np.inf
        self._margin = -float(shifted.max()) if len(row) > 1 else math.inf
        shifted[best] = 0.0

    def of(self, chosen: int) -> TokenStats:
        """Return the statistics of token `chosen` in the last row read."""
        logprob = min(0.0, float(self._shifted[chosen]) - self._log_total)
        return TokenStats(logprob, self._margin, self._entropy)


def best_tokens(row: FloatArray, count: int) -> list[tuple[int, float]]:
    """Return (token, log-probability) of the `count` most probable tokens of a logits row, best first.

    The vocabulary is never sorted: only the `count` blocks with the largest maxima can hold these tokens.
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
    """Exact statistics of the tokens generated so far, kept in sorted lists.

    Attributes:
        count: number of tokens.
        last: statistics of the newest token.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last = TokenStats(0.0, 0.0, 0.0)
        self._sorted: dict[str, list[float]] = {name: [] for name in TokenStats._fields}

    def add(self, stats: TokenStats) -> None:
        """Add the statistics of one token."""
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
        """Return mean, minimum, maximum and three quantiles of each statistic, in nats."""
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
