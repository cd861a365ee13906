"""Statistics of a logits row agree with their definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.stats import RowStats, RunningStats, TokenStats, best_tokens
from cascade.errors import ModelError


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


@given(st.integers(1, 5000), st.integers(1, 20), st.integers(0, 10_000))
def test_the_most_probable_tokens_are_those_of_a_full_sort(size: int, count: int, seed: int) -> None:
    row = np.random.default_rng(seed).integers(-50, 50, size).astype(np.float32) / 4  # with many equal values
    wide = row.astype(np.float64)
    logprob = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    best = best_tokens(row, count)
    assert [value for _, value in best] == pytest.approx(np.sort(logprob)[::-1][:count], abs=1e-4)
    assert all(logprob[token] == pytest.approx(value, abs=1e-4) for token, value in best)
    assert len({token for token, _ in best}) == len(best) == min(size, count)


@given(st.lists(st.floats(-30, 0), min_size=1, max_size=60))
def test_running_quantiles_are_exact(logprobs: list[float]) -> None:
    running = RunningStats()
    for value in logprobs:
        running.add(TokenStats(value, 1.0, 2.0))
    ordered = sorted(logprobs)
    assert running.quantile(0.0) == ordered[0]
    assert running.quantile(1.0) == ordered[-1]
    assert running.quantile(0.5) == ordered[(len(ordered) - 1) // 2]
    assert running.mean() == pytest.approx(sum(logprobs) / len(logprobs))
    assert (running.count, running.last.logprob) == (len(logprobs), logprobs[-1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 7, 99])
def test_a_row_with_a_value_that_is_not_a_number_is_refused(bad: float, index: int) -> None:
    row = np.linspace(-1, 1, 100, dtype=np.float32)
    row[index] = bad
    with pytest.raises(ModelError, match="NaN or infinity in its output"):
        RowStats(100)(row, 5)


def test_a_certain_token_has_probability_one_and_no_entropy() -> None:
    row = np.zeros(100, np.float32)
    row[7] = 1000.0
    stats = RowStats(100)(row, 7)
    assert (stats.logprob, stats.margin, stats.entropy) == (0.0, 1000.0, 0.0)


def test_equal_tokens_have_no_margin_and_full_entropy() -> None:
    stats = RowStats(64)(np.full(64, -3.0, np.float32), 5)
    assert stats == pytest.approx((-np.log(64), 0.0, np.log(64)), abs=1e-6)
