"""What a decode holds: short prompts first, long ones in equal chunks, nobody left out for ever."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.scheduler import DecodeCapacity, plan_decode
from cascade.engine.sequence import DecodePart, DecodeSequence
from cascade.engine.worker import Ticket
from cascade.errors import CascadeError


class Idle:
    """A stepper that is never stepped: plans are made from the sequences alone."""

    busy = False

    def step(self) -> list[Ticket]:
        return []

    def fail(self, _error: CascadeError) -> list[Ticket]:
        return []

    def interrupt(self) -> None:
        """Nothing is in flight."""


def sequence(
    tokens: int, evaluated: int = 0, *, placed: float = 1.0, watched: bool = False
) -> DecodeSequence:
    watch = (lambda _position, _row: None) if watched else None
    made = DecodeSequence(
        Idle(), np.arange(tokens, dtype=np.int32), lambda _row, _index: None, on_prompt_logits=watch
    )
    made.length, made.started_at = evaluated, placed
    return made


def play(sequences: list[DecodeSequence], room: DecodeCapacity, *, causal: bool = True) -> list[DecodePart]:
    """Make the next plan and carry it out, as the scheduler does."""
    plan = plan_decode(sequences, room, causal=causal)
    for one in sequences:
        one.skipped += 1
    for part in plan:
        part.sequence.skipped, part.sequence.length = 0, part.end
    return plan


def sizes(sequences: list[DecodeSequence], room: DecodeCapacity) -> list[int]:
    """Return the tokens that each of `sequences` has in the next plan."""
    plan = {part.sequence: part.tokens for part in plan_decode(sequences, room, causal=True)}
    return [plan.get(one, 0) for one in sequences]


ROOM = DecodeCapacity(chunk=256, tokens=512, rows=512)


def test_short_prompts_share_a_decode_and_a_long_one_waits() -> None:
    writing, long = sequence(5, 9), sequence(600, placed=1.0)
    short, shorter = sequence(100, placed=2.0), sequence(90, placed=3.0)
    assert sizes([writing, long, short, shorter], ROOM) == [1, 0, 100, 90]


def test_a_long_prompt_is_cut_into_equal_chunks() -> None:
    long = sequence(600)
    cut = []
    while long.unread > 0:
        before = long.length
        play([long], ROOM)
        cut.append(long.length - before)
    assert cut == [200, 200, 200]


def test_a_chunk_goes_to_the_prompt_that_is_done_first() -> None:
    assert sizes([sequence(900, placed=1.0), sequence(300, placed=2.0)], ROOM) == [0, 150]


def test_endless_short_prompts_do_not_starve_a_long_one() -> None:
    long = sequence(2000)
    left_out = []
    for _ in range(40):
        shorts = [sequence(200, placed=2.0), sequence(50, placed=2.0)]
        plan = plan_decode([long, *shorts], ROOM, causal=True)
        left_out.append(all(part.sequence is not long for part in plan))
        play([long, *shorts], ROOM)
    assert left_out == [True] * 4 + ([False] + [True] * 4) * 7 + [False]


def test_a_prompt_whose_rows_are_watched_gets_no_more_tokens_than_rows() -> None:
    watched = sequence(400, watched=True)
    (part,) = plan_decode([watched], DecodeCapacity(chunk=256, tokens=512, rows=100), causal=True)
    assert (part.tokens, part.outputs) == (100, 100)


def test_where_writers_fill_a_decode_prompts_wait() -> None:
    writers = [sequence(2, 3) for _ in range(8)]
    plan = plan_decode([*writers, sequence(10)], DecodeCapacity(chunk=256, tokens=8, rows=8), causal=True)
    assert [part.tokens for part in plan] == [1] * 8


def test_a_model_that_is_not_causal_reads_whole_prompts() -> None:
    long, short, other = sequence(300, placed=0.5), sequence(100), sequence(200)
    plan = plan_decode([short, long, other], DecodeCapacity(chunk=256, tokens=512, rows=16), causal=False)
    assert [part.tokens for part in plan] == [300]
    plan = plan_decode([short, other], DecodeCapacity(chunk=256, tokens=512, rows=16), causal=False)
    assert [part.tokens for part in plan] == [100]


class Coming(NamedTuple):
    """A prompt that gets a slot before a step."""

    step: int
    tokens: int
    watched: bool


coming = st.lists(
    st.builds(Coming, st.integers(0, 30), st.integers(1, 900), st.booleans()), min_size=1, max_size=12
)


@given(
    coming=coming,
    room=st.builds(DecodeCapacity, st.integers(1, 300), st.integers(12, 512), st.integers(12, 512)),
)
def test_every_decode_has_room_and_every_prompt_is_read(coming: list[Coming], room: DecodeCapacity) -> None:
    sequences: list[DecodeSequence] = []
    waiting = sorted(coming)
    bound = sum(one.tokens for one in coming) + 31  # a token a decode, at worst
    for step in range(bound):
        while waiting and waiting[0].step <= step:
            one = waiting.pop(0)
            sequences.append(sequence(one.tokens, placed=float(step), watched=one.watched))
        reading = [s for s in sequences if s.unread > 0]
        writing = [s for s in sequences if s.unread <= 0]
        plan = play(sequences, room)
        assert len({part.sequence for part in plan}) == len(plan)
        assert all(part.outputs <= room.rows for part in plan)
        assert sum(part.outputs for part in plan) <= room.rows
        held = {part.sequence for part in plan}
        assert held >= set(writing)
        assert not reading or held & set(reading)  # a step always brings some prompt on
        if not waiting and not any(s.unread > 0 for s in sequences):
            return
    raise AssertionError(f"{[s.unread for s in sequences]} tokens are left after {bound} decodes")
