"""What the next decode holds: one token of each sequence that writes, and chunks of prompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cascade.engine.batch import even
from cascade.engine.sequence import Part, Sequence

_PATIENCE = 4  # decodes of prompts in a row that may leave out the one that has waited longest


class Room(NamedTuple):
    """What a decode may hold: prompt tokens (`chunk`), tokens in all, logits rows."""

    chunk: int
    tokens: int
    rows: int


def plan_decode(sequences: Iterable[Sequence], room: Room, *, causal: bool) -> list[Part]:
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
    plan = [Part(sequence, sequence.length + 1, 1) for sequence in wanted if sequence.left <= 0]
    readers = sorted((s for s in wanted if s.left > 0), key=lambda s: (s.left, s.placed))
    tokens = min(room.chunk, room.tokens - len(plan))
    if not readers or tokens < 1:
        return plan
    rows = room.rows - len(plan)
    oldest = min(readers, key=lambda s: s.placed)
    if oldest.passed >= _PATIENCE or not causal:
        readers = [oldest, *(s for s in readers if s is not oldest)]
    return plan + (_parts(readers, tokens, rows) if causal else _whole(readers, tokens, rows))


def _parts(sequences: list[Sequence], tokens: int, rows: int) -> list[Part]:
    plan: list[Part] = []
    for sequence in sequences:
        if not plan or sequence.left <= tokens:
            part = _chunk(sequence, even(sequence.left, tokens), rows)
            if part.tokens:
                plan.append(part)
                tokens -= part.tokens
                rows -= part.outputs
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
