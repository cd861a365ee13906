"""Contention is told from decodes that are slow for another reason."""

from __future__ import annotations

import pytest

from cascade.engine.threads import DecodeTimes, is_contended


def expected(pace: DecodeTimes, tokens: int, depth: int, seconds: float, threads: int = 2) -> float:
    """Return what a decode should have taken that took so many seconds."""
    return pace.expected(tokens, depth, seconds, seconds, threads)


def test_with_one_thread_its_own_cpu_time_is_what_a_decode_should_take() -> None:
    assert DecodeTimes(1).expected(8, 100, wall=0.9, cpu=0.3, threads=1) == 0.3
    assert DecodeTimes(1).expected(8, 100, wall=0.3, cpu=0.31, threads=1) == 0.3


def test_with_more_threads_the_fastest_of_its_size_counts() -> None:
    pace = DecodeTimes(2)
    assert expected(pace, 8, 100, 0.2) == 0.2
    assert expected(pace, 8, 100, 0.8) == pytest.approx(0.2, rel=0.02)
    assert expected(pace, 128, 100, 0.8) == 0.8  # larger decodes take longer
    assert expected(pace, 8, 4000, 0.4) == 0.4  # and so do deeper ones
    assert expected(pace, 8, 100, 0.1) == 0.1


def test_what_fewer_threads_take_says_nothing_about_all() -> None:
    pace = DecodeTimes(2)
    assert expected(pace, 8, 100, 0.5, threads=1) == 0.5  # nothing is known yet
    assert expected(pace, 8, 100, 0.2) == 0.2
    for _ in range(100):
        assert expected(pace, 8, 100, 0.5, threads=1) == 0.2


def test_an_outlier_that_was_too_fast_is_forgotten() -> None:
    pace = DecodeTimes(2)
    expected(pace, 1, 10, 0.001)
    for _ in range(500):
        last = expected(pace, 1, 10, 0.1)
    assert last == 0.1


def test_a_slow_down_is_reported_above_its_bound_and_only_if_it_cost_something() -> None:
    assert is_contended(wall=0.4, expected=0.2)
    assert not is_contended(wall=0.25, expected=0.2)
    assert not is_contended(wall=0.004, expected=0.001)
    assert not is_contended(wall=0.0, expected=0.0)
