"""Statistics of a logits row agree with the plain definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.stats import RowStats


def naive(row: np.ndarray, chosen: int) -> tuple[float, float, float]:
    wide = row.astype(np.float64)
    logprob = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    second, first = np.sort(logprob)[-2:]
    return logprob[chosen], first - second, -(np.exp(logprob) * logprob).sum()


@given(st.integers(2, 5000), st.integers(0, 10_000), st.floats(0.01, 50.0))
def test_statistics_equal_the_definition(size: int, seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    row = (random.standard_normal(size) * scale).astype(np.float32)
    chosen = int(random.integers(size))
    assert RowStats(size)(row, chosen) == pytest.approx(naive(row, chosen), rel=1e-4, abs=1e-4)


def test_a_certain_token_has_probability_one_and_no_entropy() -> None:
    row = np.zeros(100, np.float32)
    row[7] = 1000.0
    stats = RowStats(100)(row, 7)
    assert (stats.logprob, stats.margin, stats.entropy) == (0.0, 1000.0, 0.0)


def test_equal_tokens_have_no_margin_and_full_entropy() -> None:
    stats = RowStats(64)(np.full(64, -3.0, np.float32), 5)
    assert stats == pytest.approx((-np.log(64), 0.0, np.log(64)), abs=1e-6)
