"""Continuous batching: the sequences of one context join and leave between decodes.

Each decode holds one token of every sequence that generates, and chunks of prompts that are being read,
at most `CHUNK` prompt tokens together. So a long prompt delays the others by one chunk at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.batch import even_part_size
from cascade.engine.context import ABORTED, Context, DecodeError
from cascade.engine.prefix import PrefixCache
from cascade.engine.sequence import DecodePart, DecodeSequence
from cascade.engine.slots import SequenceSlots
from cascade.engine.threads import DecodeTimes, ThreadBackoff
from cascade.errors import CascadeError, ModelError

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

CHUNK = (
    256  # prompt tokens of one decode; fewer make generating sequences pause more often, but for less time
)
_MAX_SKIPPED = 4  # consecutive decodes of prompts that may leave out the oldest prompt
_GROWTH = 4  # a context that becomes too small gets at least this many times its slots


class DecodeCapacity(NamedTuple):
    """Upper bounds of one decode: prompt tokens (`chunk`), all tokens, logits rows."""

    chunk: int
    tokens: int
    rows: int


def plan_decode(
    sequences: Iterable[DecodeSequence], capacity: DecodeCapacity, *, causal: bool
) -> list[DecodePart]:
    """Return the parts of the next decode: generating sequences first, then prompts.

    Short prompts come first, as many as fit as a whole, so that they do not wait for the chunks of a long
    one. Its chunks are of equal size, because a small remainder would be slower than the others. The oldest
    prompt is not postponed forever. A non-causal model reads whole prompts, the oldest in any case.

    Args:
        sequences: sequences in slots; abandoned ones get nothing.
        capacity: bounds of the decode.
        causal: whether a prompt may be evaluated in chunks.
    """
    active = [sequence for sequence in sequences if not sequence.abandoned]
    plan = [DecodePart(sequence, sequence.length + 1, 1) for sequence in active if sequence.unread <= 0]
    readers = sorted((s for s in active if s.unread > 0), key=lambda s: (s.unread, s.started_at))
    tokens = min(capacity.chunk, capacity.tokens - len(plan))
    if not readers or tokens < 1:
        return plan
    rows = capacity.rows - len(plan)
    oldest = min(readers, key=lambda s: s.started_at)
    if oldest.skipped >= _MAX_SKIPPED or not causal:
        readers = [oldest, *(s for s in readers if s is not oldest)]
    return plan + (_plan_chunks(readers, tokens, rows) if causal else _plan_whole(readers, tokens, rows))


def _plan_chunks(sequences: list[DecodeSequence], tokens: int, rows: int) -> list[DecodePart]:
    plan: list[DecodePart] = []
    for sequence in sequences:
        if not plan or sequence.unread <= tokens:
            part = _chunk(sequence, even_part_size(sequence.unread, tokens), rows)
            if part.tokens:
                plan.append(part)
                tokens -= part.tokens
                rows -= part.outputs
    return plan


def _chunk(sequence: DecodeSequence, size: int, rows: int) -> DecodePart:
    """Return the next `size` tokens of a prompt, fewer if the decode lacks logits `rows` for them."""
    if sequence.on_prompt_logits is not None:
        size = min(size, rows)
        return DecodePart(sequence, sequence.length + size, size)
    outputs = int(size == sequence.unread)
    if outputs > rows:  # leave the last token, which needs a row, to the next decode
        size, outputs = size - 1, 0
    return DecodePart(sequence, sequence.length + size, outputs)


def _plan_whole(sequences: list[DecodeSequence], tokens: int, rows: int) -> list[DecodePart]:
    plan: list[DecodePart] = []
    for sequence in sequences:
        size = len(sequence.prompt)
        if not plan or (size <= tokens and len(plan) < rows):
            plan.append(DecodePart(sequence, size, 1))
            tokens -= size
    return plan


class Scheduler:
    """Decodes the sequences of one context step by step. Used on the decode thread only.

    Attributes:
        context: the context they are decoded in.
        prefixes: saved prefixes of prompts, if the model can reuse them.
        steps: number of decodes.
        tokens: number of tokens evaluated.
    """

    def __init__(
        self, context: Context, *, causal: bool, prefixes: PrefixCache | None = None, max_slots: int = 0
    ) -> None:
        """Make a scheduler for `context`, whose slots grow up to `max_slots` with the load."""
        self.context = context
        self._max_slots = max(max_slots, context.shape.slots)
        self.steps = self.tokens = 0
        self._causal = causal
        self._waiting: deque[DecodeSequence] = deque()
        self.prefixes = prefixes
        self._slots = SequenceSlots(context, prefixes)
        self._in_flight: list[DecodePart] = []
        self._times = DecodeTimes(context.shape.n_threads)
        self._backoff = ThreadBackoff(context.shape.n_threads)
        self._capacity = DecodeCapacity(CHUNK, context.n_batch, context.max_outputs)

    @property
    def saved_bytes(self) -> int:
        """Memory of the saved prefixes."""
        return self.prefixes.bytes if self.prefixes else 0

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._waiting or self._slots.used)

    def add(self, sequence: DecodeSequence) -> None:
        """Queue a sequence; a later step gives it a slot."""
        self._waiting.append(sequence)

    def drop(self, sequence: DecodeSequence) -> None:
        """Remove a sequence, whether it waits or has a slot."""
        if sequence.slot >= 0:
            self._slots.release(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def interrupt(self) -> None:
        """End the decode in flight if most of its tokens belong to abandoned sequences.

        May be called from any thread. A race does no harm: what was ended is evaluated again.
        """
        parts = self._in_flight
        abandoned = sum(part.tokens for part in parts if part.sequence.abandoned)
        if 2 * abandoned > sum(part.tokens for part in parts):
            self.context.abort_flag.set()

    def step(self) -> list[DecodeSequence]:
        """Give waiting sequences slots, decode one batch, and return the sequences that are done."""
        self._place_waiting()
        plan = plan_decode(self._slots.used, self._capacity, causal=self._causal)
        if not plan:
            return []
        try:
            self._decode(plan)
        except DecodeError as error:
            self._roll_back(plan)
            done = [] if error.code == ABORTED else self._decode_separately(plan, error)
        else:
            done = self._deliver(plan)
        for sequence in done:
            sequence.done = True
            self._slots.release(sequence)
        return done

    def fail(self, error: CascadeError) -> list[DecodeSequence]:
        """End all sequences with `error` and return them."""
        sequences = [*self._slots.used, *self._waiting]
        self._waiting.clear()
        for sequence in sequences:
            sequence.error, sequence.done = error, True
            if sequence.slot >= 0:
                self._slots.release(sequence)
        return sequences

    def _place_waiting(self) -> None:
        """Give waiting sequences free slots in order of arrival; in a pool, as long as there are cells."""
        self._grow()
        postponed: list[DecodeSequence] = []
        while self._waiting and self._slots.free:
            sequence = self._waiting[0]
            if self.context.shape.packed and sequence.cells > self._slots.unreserved_cells:
                break
            self._waiting.popleft()
            if self._slots.will_share_prefix(sequence):
                postponed.append(sequence)
            else:
                self._slots.occupy(sequence)
        self._waiting.extendleft(reversed(postponed))
        self._slots.close_gaps()

    def _grow(self) -> None:
        wanted = min(self._max_slots, len(self._waiting) + len(self._slots.used))
        slots = self.context.shape.slots
        if wanted <= slots:
            return
        try:
            self._slots.grow(min(self._max_slots, max(wanted, _GROWTH * slots)))
        except ModelError:  # not enough memory: stay at this size
            self._max_slots = slots

    def _decode(self, plan: list[DecodePart]) -> None:
        context = self.context
        context.batch.clear()
        # llama.cpp evaluates consecutive slots together.
        plan.sort(key=lambda part: part.sequence.slot)
        tokens = [part.sequence.next_token for part in plan if part.sequence.next_token is not None]
        if len(tokens) == len(plan):
            slots = [part.sequence.slot for part in plan]
            context.batch.fill_steps(slots, tokens, [part.sequence.length for part in plan])
        else:
            for part in plan:
                context.batch.add(part.sequence.slot, _part_tokens(part), part.sequence.length, part.outputs)
        context.abort_flag.clear()
        context.use_threads(self._backoff.threads)
        self._in_flight = plan
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            context.decode()
        finally:
            self._in_flight = []
        self._record(plan, time.perf_counter() - wall, time.thread_time() - cpu)

    def _record(self, plan: list[DecodePart], wall: float, cpu: float) -> None:
        """Record a decode that took `wall` seconds, and `cpu` seconds on this thread."""
        tokens = sum(part.tokens for part in plan)
        threads = self._backoff.threads
        expected = self._times.expected(tokens, max(part.end for part in plan), wall, cpu, threads)
        self._backoff.record(wall, expected)
        self.steps += 1
        self.tokens += tokens
        for sequence in self._slots.used:
            sequence.skipped += 1
        for sequence, _, _ in plan:
            sequence.skipped = 0
            sequence.wall += wall
            sequence.expected += expected
            sequence.max_batch = max(sequence.max_batch, len(plan))
            sequence.min_threads = min(sequence.min_threads or threads, threads)

    def _roll_back(self, plan: list[DecodePart]) -> None:
        for sequence, _, _ in plan:
            self.context.truncate(sequence.slot, sequence.length)

    def _decode_separately(self, plan: list[DecodePart], error: DecodeError) -> list[DecodeSequence]:
        """Decode each sequence of a failed batch alone, so that only those fail that fail alone."""
        if len(plan) == 1:
            plan[0].sequence.error = error
            return [plan[0].sequence]
        done: list[DecodeSequence] = []
        for part in plan:
            try:
                self._decode([part])
            except DecodeError as own_error:
                self._roll_back([part])
                if own_error.code != ABORTED:
                    part.sequence.error = own_error
                    done.append(part.sequence)
            else:
                done += self._deliver([part])
        return done

    def _deliver(self, plan: list[DecodePart]) -> list[DecodeSequence]:
        """Hand each sequence its logits rows; return the sequences that are done."""
        total = self.context.n_outputs
        rows = self.context.logits(total) if total else np.empty((0, 0), np.float32)
        done: list[DecodeSequence] = []
        first = 0
        for part in plan:
            own_rows = rows[first : first + part.outputs]
            first += part.outputs
            try:
                if _advance(part, own_rows, first - 1 - total):
                    done.append(part.sequence)
            except CascadeError as error:
                part.sequence.error = error
                done.append(part.sequence)
        return done


def _part_tokens(part: DecodePart) -> IntArray:
    sequence = part.sequence
    if sequence.next_token is not None:
        return np.array([sequence.next_token], np.int32)
    return sequence.prompt[sequence.length : part.end]


def _advance(part: DecodePart, rows: FloatArray, index: int) -> bool:
    """Advance the sequence by a decoded part; return whether it is done. `index` is that of its last row."""
    sequence, start = part.sequence, part.sequence.length
    sequence.length = part.end
    watched = len(rows) - int(sequence.unread <= 0 and len(rows) > 0)
    if sequence.on_prompt_logits is not None:
        for offset in range(watched):
            sequence.on_prompt_logits(start + offset, rows[offset])
    if watched == len(rows):
        return False
    sequence.next_token = sequence.choose(rows[-1], index)
    return sequence.next_token is None
