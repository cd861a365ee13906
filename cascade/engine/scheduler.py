"""Continuous batching: the sequences of one context join and leave between decodes.

Every decode holds one token of each sequence that writes, and chunks of prompts that are being read,
together at most `CHUNK` tokens; so a long prompt delays the others by one chunk at a time.
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

_PATIENCE = 4  # decodes of prompts in a row that may leave out the one that has waited longest


class DecodeCapacity(NamedTuple):
    """What a decode may hold: prompt tokens (`chunk`), tokens in all, logits rows."""

    chunk: int
    tokens: int
    rows: int


def plan_decode(
    sequences: Iterable[DecodeSequence], room: DecodeCapacity, *, causal: bool
) -> list[DecodePart]:
    """Return the parts of the next decode: those that write first, then prompts.

    Short prompts come first, as many as fit in whole, so that they do not wait for a long one's chunks. Those
    are of equal size: the few tokens left over would be slower than the others. The oldest prompt is not left
    out for ever. A model that is not causal reads whole prompts, the oldest in any case.

    Args:
        sequences: those in slots; one that nobody waits for any more gets nothing.
        room: what the decode may hold.
        causal: whether a prompt may be evaluated in chunks.
    """
    wanted = [sequence for sequence in sequences if not sequence.abandoned]
    plan = [DecodePart(sequence, sequence.length + 1, 1) for sequence in wanted if sequence.left <= 0]
    readers = sorted((s for s in wanted if s.left > 0), key=lambda s: (s.left, s.placed))
    tokens = min(room.chunk, room.tokens - len(plan))
    if not readers or tokens < 1:
        return plan
    rows = room.rows - len(plan)
    oldest = min(readers, key=lambda s: s.placed)
    if oldest.passed >= _PATIENCE or not causal:
        readers = [oldest, *(s for s in readers if s is not oldest)]
    return plan + (_parts(readers, tokens, rows) if causal else _whole(readers, tokens, rows))


def _parts(sequences: list[DecodeSequence], tokens: int, rows: int) -> list[DecodePart]:
    plan: list[DecodePart] = []
    for sequence in sequences:
        if not plan or sequence.left <= tokens:
            part = _chunk(sequence, even_part_size(sequence.left, tokens), rows)
            if part.tokens:
                plan.append(part)
                tokens -= part.tokens
                rows -= part.outputs
    return plan


def _chunk(sequence: DecodeSequence, size: int, rows: int) -> DecodePart:
    """The next `size` tokens of a prompt, fewer where the decode has no `rows` left for them."""
    if sequence.watch is not None:
        size = min(size, rows)
        return DecodePart(sequence, sequence.length + size, size)
    outputs = int(size == sequence.left)
    if outputs > rows:  # leave the last token, whose row is needed, for the next decode
        size, outputs = size - 1, 0
    return DecodePart(sequence, sequence.length + size, outputs)


def _whole(sequences: list[DecodeSequence], tokens: int, rows: int) -> list[DecodePart]:
    plan: list[DecodePart] = []
    for sequence in sequences:
        size = len(sequence.prompt)
        if not plan or (size <= tokens and len(plan) < rows):
            plan.append(DecodePart(sequence, size, 1))
            tokens -= size
    return plan


IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
# Prompt tokens of one decode. Fewer make the pauses of those that write shorter, and more of them.
CHUNK = 256
_GROWTH = 4  # a context that becomes too small gets at least so many times its slots


class Scheduler:
    """Steps the sequences of one context. Lives on the decode thread.

    Attributes:
        context: where they are decoded.
        prefixes: the saved beginnings of prompts, if the model can reuse them.
        steps: decodes so far.
        tokens: tokens evaluated so far.
    """

    def __init__(
        self, context: Context, *, causal: bool, prefixes: PrefixCache | None = None, most: int = 0
    ) -> None:
        """Make a scheduler of `context`, whose slots may grow up to `most` where more sequences come."""
        self.context = context
        self._most = max(most, context.shape.slots)
        self.steps = self.tokens = 0
        self._causal = causal
        self._waiting: deque[DecodeSequence] = deque()
        self.prefixes = prefixes
        self._slots = SequenceSlots(context, prefixes)
        self._flight: list[DecodePart] = []
        self._pace = DecodeTimes(context.shape.n_threads)
        self._backoff = ThreadBackoff(context.shape.n_threads)
        self._room = DecodeCapacity(CHUNK, context.n_batch, context.max_outputs)

    @property
    def saved_bytes(self) -> int:
        """Memory of the saved prefixes."""
        return self.prefixes.bytes if self.prefixes else 0

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._waiting or self._slots.used)

    def add(self, sequence: DecodeSequence) -> None:
        """Queue a sequence; it gets a slot in a later step."""
        self._waiting.append(sequence)

    def drop(self, sequence: DecodeSequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence.slot >= 0:
            self._slots.release(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def interrupt(self) -> None:
        """End the decode in flight if most of its tokens are for sequences that nobody waits for.

        Called from any thread. What it ends is only evaluated again, so a race does no harm.
        """
        flight = self._flight
        vain = sum(part.tokens for part in flight if part.sequence.abandoned)
        if 2 * vain > sum(part.tokens for part in flight):
            self.context.flag.set()

    def step(self) -> list[DecodeSequence]:
        """Place waiting sequences, decode one batch, and return the sequences that are done."""
        self._place()
        plan = plan_decode(self._slots.used, self._room, causal=self._causal)
        if not plan:
            return []
        try:
            self._decode(plan)
        except DecodeError as error:
            self._roll_back(plan)
            done = [] if error.code == ABORTED else self._alone(plan, error)
        else:
            done = self._deliver(plan)
        for sequence in done:
            sequence.done = True
            self._slots.release(sequence)
        return done

    def fail(self, error: CascadeError) -> list[DecodeSequence]:
        """Give up all sequences; return them."""
        everyone = [*self._slots.used, *self._waiting]
        self._waiting.clear()
        for sequence in everyone:
            sequence.error, sequence.done = error, True
            if sequence.slot >= 0:
                self._slots.release(sequence)
        return everyone

    def _place(self) -> None:
        """Give waiting sequences free slots, the first come first; in a pool as long as there are cells."""
        self._grow()
        held: list[DecodeSequence] = []
        while self._waiting and self._slots.free:
            sequence = self._waiting[0]
            if self.context.shape.packed and sequence.cells > self._slots.cells:
                break
            self._waiting.popleft()
            if self._slots.soon_shared(sequence):
                held.append(sequence)
            else:
                self._slots.occupy(sequence)
        self._waiting.extendleft(reversed(held))
        self._slots.close_gaps()

    def _grow(self) -> None:
        wanted = min(self._most, len(self._waiting) + len(self._slots.used))
        slots = self.context.shape.slots
        if wanted <= slots:
            return
        try:
            self._slots.grow(min(self._most, max(wanted, _GROWTH * slots)))
        except ModelError:  # no memory for more: go on with these
            self._most = slots

    def _decode(self, plan: list[DecodePart]) -> None:
        context = self.context
        context.batch.clear()
        # llama.cpp evaluates slots together that follow each other in the batch.
        plan.sort(key=lambda part: part.sequence.slot)
        tokens = [part.sequence.next for part in plan if part.sequence.next is not None]
        if len(tokens) == len(plan):
            slots = [part.sequence.slot for part in plan]
            context.batch.steps(slots, tokens, [part.sequence.length for part in plan])
        else:
            for part in plan:
                context.batch.add(part.sequence.slot, _tokens(part), part.sequence.length, part.outputs)
        context.flag.clear()
        context.use_threads(self._backoff.threads)
        self._flight = plan
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            context.run()
        finally:
            self._flight = []
        self._account(plan, time.perf_counter() - wall, time.thread_time() - cpu)

    def _account(self, plan: list[DecodePart], wall: float, cpu: float) -> None:
        tokens = sum(part.tokens for part in plan)
        threads = self._backoff.threads
        expected = self._pace.expected(tokens, max(part.end for part in plan), wall, cpu, threads)
        self._backoff.note(wall, expected)
        self.steps += 1
        self.tokens += tokens
        for sequence in self._slots.used:
            sequence.passed += 1
        for sequence, _, _ in plan:
            sequence.passed = 0
            sequence.wall += wall
            sequence.expected += expected
            sequence.batch = max(sequence.batch, len(plan))
            sequence.threads = min(sequence.threads or threads, threads)

    def _roll_back(self, plan: list[DecodePart]) -> None:
        for sequence, _, _ in plan:
            self.context.truncate(sequence.slot, sequence.length)

    def _alone(self, plan: list[DecodePart], error: DecodeError) -> list[DecodeSequence]:
        """Decode every sequence of a failed batch by itself: only those fail that fail alone."""
        if len(plan) == 1:
            plan[0].sequence.error = error
            return [plan[0].sequence]
        done: list[DecodeSequence] = []
        for part in plan:
            try:
                self._decode([part])
            except DecodeError as own:
                self._roll_back([part])
                if own.code != ABORTED:
                    part.sequence.error = own
                    done.append(part.sequence)
            else:
                done += self._deliver([part])
        return done

    def _deliver(self, plan: list[DecodePart]) -> list[DecodeSequence]:
        """Hand every sequence its logits rows; return those that are done."""
        total = self.context.n_outputs
        rows = self.context.logits(total) if total else np.empty((0, 0), np.float32)
        done: list[DecodeSequence] = []
        first = 0
        for part in plan:
            own = rows[first : first + part.outputs]
            first += part.outputs
            try:
                if _read(part, own, first - 1 - total):
                    done.append(part.sequence)
            except CascadeError as error:
                part.sequence.error = error
                done.append(part.sequence)
        return done


def _tokens(part: DecodePart) -> IntArray:
    sequence = part.sequence
    if sequence.next is not None:
        return np.array([sequence.next], np.int32)
    return sequence.prompt[sequence.length : part.end]


def _read(part: DecodePart, rows: FloatArray, index: int) -> bool:
    """Count a decoded part in; return whether its sequence is done. `index` is that of its last row."""
    sequence, begin = part.sequence, part.sequence.length
    sequence.length = part.end
    last = len(rows) - int(sequence.left <= 0 and len(rows) > 0)
    if sequence.watch is not None:
        for offset in range(last):
            sequence.watch(begin + offset, rows[offset])
    if last == len(rows):
        return False
    sequence.next = sequence.take(rows[-1], index)
    return sequence.next is None
