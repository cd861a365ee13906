"""The number of threads: its default, contention told from other delays, and backing off from busy cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.threads import DecodeTimes, ThreadBackoff, available_cores, default_threads, is_contended


def expected(times: DecodeTimes, tokens: int, depth: int, seconds: float, threads: int = 2) -> float:
    """Return the seconds that a decode should have taken if it took `seconds`."""
    return times.expected(tokens, depth, seconds, seconds, threads)


def test_with_one_thread_a_decode_should_take_its_own_cpu_time() -> None:
    assert DecodeTimes(1).expected(8, 100, wall=0.9, cpu=0.3, threads=1) == 0.3
    assert DecodeTimes(1).expected(8, 100, wall=0.3, cpu=0.31, threads=1) == 0.3


def test_with_more_threads_the_fastest_decode_of_its_size_is_the_reference() -> None:
    times = DecodeTimes(2)
    assert expected(times, 8, 100, 0.2) == 0.2
    assert expected(times, 8, 100, 0.8) == pytest.approx(0.2, rel=0.02)
    assert expected(times, 128, 100, 0.8) == 0.8  # larger decodes take longer
    assert expected(times, 8, 4000, 0.4) == 0.4  # so do deeper ones
    assert expected(times, 8, 100, 0.1) == 0.1


def test_times_with_fewer_threads_do_not_change_the_reference() -> None:
    times = DecodeTimes(2)
    assert expected(times, 8, 100, 0.5, threads=1) == 0.5  # there is no reference yet
    assert expected(times, 8, 100, 0.2) == 0.2
    for _ in range(100):
        assert expected(times, 8, 100, 0.5, threads=1) == 0.2


def test_an_outlier_that_was_too_fast_is_forgotten() -> None:
    times = DecodeTimes(2)
    expected(times, 1, 10, 0.001)
    for _ in range(500):
        last = expected(times, 1, 10, 0.1)
    assert last == 0.1


def test_contention_is_reported_above_a_ratio_and_a_minimum_of_seconds() -> None:
    assert is_contended(wall=0.4, expected=0.2)
    assert not is_contended(wall=0.25, expected=0.2)
    assert not is_contended(wall=0.004, expected=0.001)
    assert not is_contended(wall=0.0, expected=0.0)


STEP = 0.03  # seconds of a decode with all threads and the machine to itself


def play(backoff: ThreadBackoff, decodes: int, wall: Callable[[int], float]) -> list[int]:
    """Return the threads of each decode, if a decode takes `wall(threads)` seconds."""
    used = []
    for _ in range(decodes):
        used.append(backoff.threads)
        backoff.record(wall(backoff.threads), STEP)
    return used


def crowded(threads: int) -> float:
    """Return the seconds of a decode while one core is taken: two threads wait for each other."""
    return 4 * STEP if threads == 2 else 2 * STEP


def alone(threads: int) -> float:
    return 2 * STEP / threads


def test_an_idle_machine_gets_all_threads() -> None:
    assert set(play(ThreadBackoff(2), 500, alone)) == {2}


def test_beside_a_busy_neighbor_half_of_the_threads_are_used_most_of_the_time() -> None:
    used = play(ThreadBackoff(2), 3000, crowded)
    assert used[:9] == [2] * 8 + [1]
    assert used[-1000:].count(1) > 950  # the pauses between two tries have become long


def test_all_threads_come_back_when_the_neighbor_is_gone() -> None:
    backoff = ThreadBackoff(2)
    play(backoff, 20, crowded)
    assert backoff.threads == 1
    used = play(backoff, 200, alone)
    assert set(used[-150:]) == {2}
    # The machine was free in between, so the pause starts at its first value again.
    assert play(backoff, 60, crowded).count(2) > 16


def test_all_threads_return_if_half_of_them_are_no_faster() -> None:
    used = play(ThreadBackoff(2), 500, lambda _threads: 4 * STEP)
    assert used[:17] == [2] * 8 + [1] * 8 + [2]
    assert set(used[17:]) == {2}  # for a minute of decoding


def test_a_single_pause_changes_nothing() -> None:
    pauses = iter([STEP] * 20 + [2.0] + [STEP] * 100)
    assert set(play(ThreadBackoff(2), 120, lambda _threads: next(pauses))) == {2}


def test_a_slow_down_that_costs_nothing_changes_nothing() -> None:
    backoff = ThreadBackoff(8)
    for _ in range(50):
        backoff.record(0.003, 0.001)
    assert backoff.threads == 8


def test_one_thread_stays_one() -> None:
    assert set(play(ThreadBackoff(1), 100, lambda _threads: 10 * STEP)) == {1}


@given(max_threads=st.integers(1, 64), slow_downs=st.lists(st.floats(0.1, 20.0), max_size=200))
def test_threads_stay_between_one_and_all(max_threads: int, slow_downs: list[float]) -> None:
    backoff = ThreadBackoff(max_threads)

    def walls() -> Iterator[float]:
        yield from (STEP * slow_down for slow_down in slow_downs)

    source = walls()
    used = play(backoff, len(slow_downs), lambda _threads: next(source))
    assert all(threads in {max_threads, max(1, max_threads // 2)} for threads in used)


def test_small_models_use_one_thread_and_large_ones_leave_a_core_free() -> None:
    assert default_threads(5_000_000) == 1
    assert default_threads(2_000_000_000) == max(1, available_cores() - 1)
