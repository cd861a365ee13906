"""Fewer threads beside busy neighbours, all of them when the cores are free again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.threads import ThreadBackoff

STEP = 0.03  # seconds of a decode with all threads and the machine to itself


def play(backoff: ThreadBackoff, decodes: int, wall: Callable[[int], float]) -> list[int]:
    """Return the threads of each decode, where `wall(threads)` says how long one takes."""
    used = []
    for _ in range(decodes):
        used.append(backoff.threads)
        backoff.record(wall(backoff.threads), STEP)
    return used


def crowded(threads: int) -> float:
    """One core is taken: two threads wait for each other."""
    return 4 * STEP if threads == 2 else 2 * STEP


def alone(threads: int) -> float:
    return 2 * STEP / threads


def test_an_idle_machine_gets_all_threads() -> None:
    assert set(play(ThreadBackoff(2), 500, alone)) == {2}


def test_beside_a_busy_neighbour_half_of_the_threads_are_used_most_of_the_time() -> None:
    used = play(ThreadBackoff(2), 3000, crowded)
    assert used[:9] == [2] * 8 + [1]
    assert used[-1000:].count(1) > 950  # the pauses between two looks have become long


def test_all_threads_come_back_when_the_neighbour_is_gone() -> None:
    backoff = ThreadBackoff(2)
    play(backoff, 20, crowded)
    assert backoff.threads == 1
    used = play(backoff, 200, alone)
    assert set(used[-150:]) == {2}
    # The machine was free meanwhile, so the pause before the next look is the first one again.
    assert play(backoff, 60, crowded).count(2) > 16


def test_half_of_the_threads_are_given_up_where_they_are_no_faster() -> None:
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


@given(most=st.integers(1, 64), slow_downs=st.lists(st.floats(0.1, 20.0), max_size=200))
def test_threads_stay_between_one_and_all(most: int, slow_downs: list[float]) -> None:
    backoff = ThreadBackoff(most)

    def walls() -> Iterator[float]:
        yield from (STEP * slow_down for slow_down in slow_downs)

    source = walls()
    used = play(backoff, len(slow_downs), lambda _threads: next(source))
    assert all(threads in {most, max(1, most // 2)} for threads in used)
