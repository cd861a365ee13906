"""The plan of a decode: short prompts first, long ones in equal chunks, none postponed forever."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.scheduler import DecodeCapacity, plan_decode
from cascade.engine.sequence import DecodePart, DecodeSequence
from cascade.engine.ticket import Ticket
from cascade.errors import CascadeError


class Idle:
    """A stepper that is never stepped: a plan depends only on the sequences."""

    busy = False

    def step(self) -> list[Ticket]:
        return []

    def fail(self, _error: CascadeError) -> list[Ticket]:
        return []

    def interrupt(self) -> None:
        """Do nothing: no decode is in flight."""


def sequence(
    tokens: int, evaluated: int = 0, *, started_at: float = 1.0, watched: bool = False
) -> DecodeSequence:
    watch = (lambda _position, _row: None) if watched else None
    new = DecodeSequence(
        Idle(), np.arange(tokens, dtype=np.int32), lambda _row, _index: None, on_prompt_logits=watch
    )
    new.length, new.started_at = evaluated, started_at
    return new


def play(
    sequences: list[DecodeSequence], capacity: DecodeCapacity, *, causal: bool = True
) -> list[DecodePart]:
    """Make the next plan and apply it, as the scheduler does."""
    plan = plan_decode(sequences, capacity, causal=causal)
    for one in sequences:
        one.skipped += 1
    for part in plan:
        part.sequence.skipped, part.sequence.length = 0, part.end
    return plan


def sizes(sequences: list[DecodeSequence], capacity: DecodeCapacity) -> list[int]:
    """Return the tokens of each of `sequences` in the next plan."""
    plan = {part.sequence: part.tokens for part in plan_decode(sequences, capacity, causal=True)}
    return [plan.get(one, 0) for one in sequences]


CAPACITY = DecodeCapacity(chunk=256, tokens=512, rows=512)


def test_short_prompts_share_a_decode_and_a_long_one_waits() -> None:
    generating, long = sequence(5, 9), sequence(600, started_at=1.0)
    short, shorter = sequence(100, started_at=2.0), sequence(90, started_at=3.0)
    assert sizes([generating, long, short, shorter], CAPACITY) == [1, 0, 100, 90]


def test_a_long_prompt_is_cut_into_equal_chunks() -> None:
    long = sequence(600)
    cut = []
    while long.unread > 0:
        before = long.length
        play([long], CAPACITY)
        cut.append(long.length - before)
    assert cut == [200, 200, 200]


def test_a_chunk_goes_to_the_prompt_that_will_be_read_first() -> None:
    assert sizes([sequence(900, started_at=1.0), sequence(300, started_at=2.0)], CAPACITY) == [0, 150]


def test_endless_short_prompts_do_not_starve_a_long_one() -> None:
    long = sequence(2000)
    left_out = []
    for _ in range(40):
        shorts = [sequence(200, started_at=2.0), sequence(50, started_at=2.0)]
        plan = plan_decode([long, *shorts], CAPACITY, causal=True)
        left_out.append(all(part.sequence is not long for part in plan))
        play([long, *shorts], CAPACITY)
    assert left_out == [True] * 4 + ([False] + [True] * 4) * 7 + [False]


def test_a_prompt_whose_rows_are_watched_gets_no_more_tokens_than_rows() -> None:
    watched = sequence(400, watched=True)
    (part,) = plan_decode([watched], DecodeCapacity(chunk=256, tokens=512, rows=100), causal=True)
    assert (part.tokens, part.outputs) == (100, 100)


def test_prompts_wait_while_generating_sequences_fill_a_decode() -> None:
    generating = [sequence(2, 3) for _ in range(8)]
    plan = plan_decode([*generating, sequence(10)], DecodeCapacity(chunk=256, tokens=8, rows=8), causal=True)
    assert [part.tokens for part in plan] == [1] * 8


def test_a_non_causal_model_reads_whole_prompts() -> None:
    long, short, other = sequence(300, started_at=0.5), sequence(100), sequence(200)
    plan = plan_decode([short, long, other], DecodeCapacity(chunk=256, tokens=512, rows=16), causal=False)
    assert [part.tokens for part in plan] == [300]
    plan = plan_decode([short, other], DecodeCapacity(chunk=256, tokens=512, rows=16), causal=False)
    assert [part.tokens for part in plan] == [100]


class Arrival(NamedTuple):
    """A prompt that gets a slot before `step`."""

    step: int
    tokens: int
    watched: bool


arrivals = st.lists(
    st.builds(Arrival, st.integers(0, 30), st.integers(1, 900), st.booleans()), min_size=1, max_size=12
)


@given(
    arrivals=arrivals,
    capacity=st.builds(DecodeCapacity, st.integers(1, 300), st.integers(12, 512), st.integers(12, 512)),
)
def test_every_decode_has_room_and_every_prompt_is_read(
    arrivals: list[Arrival], capacity: DecodeCapacity
) -> None:
    sequences: list[DecodeSequence] = []
    waiting = sorted(arrivals)
    bound = sum(one.tokens for one in arrivals) + 31  # at worst one token for each decode
    for step in range(bound):
        while waiting and waiting[0].step <= step:
            one = waiting.pop(0)
            sequences.append(sequence(one.tokens, started_at=float(step), watched=one.watched))
        reading = [s for s in sequences if s.unread > 0]
        generating = [s for s in sequences if s.unread <= 0]
        plan = play(sequences, capacity)
        assert len({part.sequence for part in plan}) == len(plan)
        assert all(part.outputs <= capacity.rows for part in plan)
        assert sum(part.outputs for part in plan) <= capacity.rows
        planned = {part.sequence for part in plan}
        assert planned >= set(generating)
        assert not reading or planned & set(reading)  # each step advances some prompt
        if not waiting and not any(s.unread > 0 for s in sequences):
            return
    raise AssertionError(f"{[s.unread for s in sequences]} tokens are left after {bound} decodes")
