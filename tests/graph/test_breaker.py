"""The circuit breaker as a state machine, on a clock that the tests turn."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cascade.graph.breaker import Breaker, Permit
from cascade.spec.parts import BreakerConfig


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, **settings: float) -> Breaker:
    return Breaker(BreakerConfig.model_validate({"failures": 3, "seconds": 10.0} | settings), clock)


def call(breaker: Breaker, good: bool | None) -> None:
    entry = breaker.acquire()
    assert isinstance(entry, Permit), entry
    breaker.release(entry, good)


def opened(clock: Clock) -> Breaker:
    breaker = made(clock)
    for _ in range(3):
        call(breaker, False)
    assert breaker.state == "open"
    return breaker


@pytest.mark.parametrize(
    "outcomes",
    [
        pytest.param((False, False, True, False, False), id="a success between them"),
        pytest.param((False, False, None, None, None), id="calls that say nothing about the model"),
    ],
)
def test_failures_in_a_row_open_it(clock: Clock, outcomes: tuple[bool | None, ...]) -> None:
    breaker = made(clock)
    for good in outcomes:
        call(breaker, good)
    assert breaker.state == "closed"
    call(breaker, False)
    assert breaker.state == "open"
    assert breaker.refusal() == breaker.acquire() == "open after 3 failures in a row, next try in 10.0 s"


def test_a_share_of_failures_opens_it_once_the_window_is_full(clock: Clock) -> None:
    breaker = made(clock, failures=100, share=0.5, window=4)
    for good in (False, False, True, True, True, False):
        call(breaker, good)
    assert breaker.state == "closed"  # one failure among the last four
    breaker = made(clock, failures=100, share=0.5, window=4)
    for good in (True, False, True, False):
        call(breaker, good)
    assert breaker.refusal() == "open after 2 failures in 4 calls, next try in 10.0 s"


def test_half_open_lets_one_probe_through_and_its_success_closes(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += 9.99
    assert breaker.acquire() == "open after 3 failures in a row, next try in 0.0 s"
    clock.now += 0.01
    assert breaker.state == "half_open"
    probe = breaker.acquire()
    assert isinstance(probe, Permit)
    assert probe.probe
    assert breaker.acquire() == breaker.refusal() == "half-open, and its one probe is under way"
    breaker.release(probe, True)
    assert breaker.state == "closed"
    call(breaker, False)
    assert breaker.state == "closed"  # old failures are forgotten


def test_a_failed_probe_opens_it_anew_for_the_whole_time(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += 10
    call(breaker, False)
    assert breaker.refusal() == "open after the probe failed, next try in 10.0 s"


def test_a_cancelled_probe_makes_room_for_the_next(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += 10
    call(breaker, None)
    assert isinstance(breaker.acquire(), Permit)


def test_outcomes_of_calls_from_before_a_change_count_for_nothing(clock: Clock) -> None:
    breaker = made(clock)
    early = [breaker.acquire() for _ in range(5)]
    late = breaker.acquire()
    for entry in early[:3]:
        assert isinstance(entry, Permit)
        breaker.release(entry, False)
    assert breaker.state == "open"
    assert isinstance(late, Permit)
    breaker.release(late, True)
    assert breaker.state == "open"
    clock.now += 10
    probe = breaker.acquire()
    breaker.release(late, True)
    assert breaker.acquire() == "half-open, and its one probe is under way"
    assert isinstance(probe, Permit)
    breaker.release(probe, True)
    breaker.release(late, False)
    assert breaker.state == "closed"


def test_of_many_threads_one_gets_the_probe(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += 10
    barrier, got = threading.Barrier(16), []

    def rush() -> None:
        barrier.wait()
        got.append(breaker.acquire())

    threads = [threading.Thread(target=rush) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(entry, Permit) for entry in got) == 1


class Machine(RuleBasedStateMachine):
    """Calls that begin, end and take time in any order; a model of what must hold, kept beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = made(self.clock)
        self.running: list[Permit] = []
        self.opened: float | None = None  # by the rules in the docstring of the module

    @rule()
    def begin(self) -> None:
        entry = self.breaker.acquire()
        if self.opened is not None and self.clock.now < self.opened + 10.0:
            assert isinstance(entry, str)
        if isinstance(entry, Permit):
            self.running.append(entry)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), good=st.sampled_from([True, False, None]))
    def end(self, data: st.DataObject, good: bool | None) -> None:
        entry = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        before = self.breaker.state
        self.breaker.release(entry, good)
        after = self.breaker.state
        if before != after:
            assert good is not None
            assert after == ("closed" if good else "open")
            self.opened = None if good else self.clock.now
        if before == "open":
            assert after == "open"

    @rule(seconds=st.floats(0, 15))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def at_most_one_probe_of_now_is_under_way(self) -> None:
        if self.breaker.state == "half_open":
            era = self.breaker._era
            assert sum(entry.probe and entry.era == era for entry in self.running) <= 1


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
