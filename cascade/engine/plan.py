"""What the next decode holds: one token of each sequence that writes, and chunks of prompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cascade.engine.sequence import Part, Sequence

_OLDEST_SHARE = 4  # a quarter of the chunk is for the prompt that has waited longest


class Room(NamedTuple):
    """What a decode may hold: prompt tokens (`chunk`), tokens in all, logits rows."""

    chunk: int
    tokens: int
    rows: int


def plan_decode(sequences: Iterable[Sequence], room: Room, *, causal: bool) -> list[Part]:
    """Return the parts of the next decode: those that write first, then prompts.

    Short prompts come first, so that they never wait for more than one chunk of a long one; the oldest
    prompt always gets its share, so that it never waits for ever. A model that is not causal reads whole
    prompts, the oldest in any case.

    Args:
        sequences: those in slots; one that nobody waits for any more gets nothing.
        room: what the decode may hold.
        causal: whether a prompt may be evaluated in chunks.
    """
    wanted = [sequence for sequence in sequences if not sequence.abandoned]
    plan = [Part(sequence, sequence.length + 1, 1) for sequence in wanted if sequence.left <= 0]
    readers = sorted((s for s in wanted if s.left > 0), key=lambda s: s.left)
    if not readers:
        return plan
    oldest = min(readers, key=lambda s: s.placed)
    tokens = min(room.chunk, room.tokens - len(plan))
    rows = room.rows - len(plan)
    if not causal:
        return plan + _whole([oldest, *(s for s in readers if s is not oldest)], tokens, rows)
    kept = min(oldest.left, max(1, tokens // _OLDEST_SHARE))
    tokens -= kept
    for sequence in readers:
        own = kept if sequence is oldest else 0
        size = min(sequence.left, own + tokens)
        part = _chunk(sequence, size, rows)
        tokens -= max(0, part.tokens - own)
        rows -= part.outputs
        if part.tokens:
            plan.append(part)
    return plan


def _chunk(sequence: Sequence, size: int, rows: int) -> Part:
    """The next `size` tokens of a prompt, fewer where the decode has no `rows` left for them."""
    if sequence.watch is not None:
        size = min(size, rows)
        return Part(sequence, sequence.length + size, size)
    outputs = int(size == sequence.left)
    if outputs > rows:  # leave the last token, whose row is needed, for the next decode
        size, outputs = size - 1, 0
    return Part(sequence, sequence.length + size, outputs)


def _whole(sequences: list[Sequence], tokens: int, rows: int) -> list[Part]:
    plan: list[Part] = []
    for sequence in sequences:
        size = len(sequence.prompt)
        if not plan or (size <= tokens and len(plan) < rows):
            plan.append(Part(sequence, size, 1))
            tokens -= size
    return plan
