"""Which sequence has which slot of a context, and what is still in the others."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from cascade.engine.context import Context
from cascade.engine.prefix import PrefixCache, common_prefix_length
from cascade.engine.sequence import DecodeSequence
from cascade.errors import ModelError

IntArray = npt.NDArray[np.int32]


class SequenceSlots:
    """The slots of one context.

    A slot keeps the prompt of its last sequence until the next one comes, for prompts that begin alike.
    """

    def __init__(self, context: Context, prefixes: PrefixCache | None) -> None:
        self._context = context
        self._prefixes = prefixes
        self._slots: list[DecodeSequence | None] = [None] * context.shape.slots
        self._retired: dict[int, IntArray] = {}  # slot → the prompt that is still in it

    @property
    def used(self) -> list[DecodeSequence]:
        """The sequences that have a slot."""
        return [sequence for sequence in self._slots if sequence is not None]

    @property
    def free(self) -> bool:
        """Whether a sequence can get a slot."""
        return None in self._slots

    @property
    def cells(self) -> int:
        """Cells of a shared pool that no sequence may need."""
        return self._context.shape.n_ctx - sum(sequence.cells for sequence in self.used)

    def soon_shared(self, sequence: DecodeSequence) -> bool:
        """Whether a prompt that is read now will soon have evaluated more of what this one begins with."""
        if self._prefixes is None or sequence.watch or len(sequence.prompt) <= self._prefixes.shortest:
            return False
        wanted = sequence.prompt[:-1]
        return any(
            common_prefix_length(wanted, other.prompt) >= max(self._prefixes.shortest, other.length + 1)
            for other in self.used
            if other.left > 0
        )

    def occupy(self, sequence: DecodeSequence) -> None:
        """Give a sequence a free slot, with what is known of its prompt's beginning in it."""
        slot = self._slots.index(None)
        if self._prefixes is not None:
            slot = self._best(sequence.prompt)
            held = self._retired | {other.slot: other.prompt[: other.length] for other in self.used}
            if sequence.watch is None:  # else every position is to be evaluated
                sequence.length = self._prefixes.fill(self._context, slot, sequence.prompt, held)
                sequence.reused = sequence.length
                self._retired.pop(slot, None)
            else:
                self._evict(slot)
        sequence.slot, sequence.placed = slot, time.monotonic()
        self._slots[slot] = sequence
        sequence.begin()

    def release(self, sequence: DecodeSequence) -> None:
        """Take the slot back."""
        slot, sequence.slot = sequence.slot, -1
        self._slots[slot] = None
        prompt = sequence.prompt[: sequence.length]
        if self._prefixes is None or len(prompt) < self._prefixes.shortest:
            self._context.truncate(slot, 0)
        else:
            self._retired[slot] = prompt

    def close_gaps(self) -> None:
        """Move the last sequences into gaps: llama.cpp cuts a batch in two where slots do not follow."""
        if self._context.shape.packed:
            return
        while self.free and self._slots.index(None) < len(self.used):
            gap, last = self._slots.index(None), self.used[-1]
            self._evict(gap)
            if last.length and not self._context.restore(gap, self._context.save(last.slot)):
                return
            self._context.truncate(last.slot, 0)
            self._slots[last.slot], self._slots[gap] = None, last
            last.slot = gap

    def grow(self, slots: int) -> None:
        """Have `slots` of them; what is in them is copied.

        Raises:
            ModelError: there is not enough memory; everything is as before then.
        """
        kept = {s: self._context.save(s.slot) for s in self.used if s.length}
        for slot in list(self._retired):
            self._evict(slot)
        before = self._context.shape.slots
        try:
            self._context.resize(slots)
        except ModelError:
            self._context.resize(before)
            raise
        finally:
            for sequence, state in kept.items():
                if not self._context.restore(sequence.slot, state):
                    sequence.length = 0
                    sequence.error = ModelError("llama.cpp cannot move a sequence to a larger context")
        self._slots += [None] * (slots - before)

    def _evict(self, slot: int) -> None:
        """Keep the prompt that is still in an unused slot, and empty the slot."""
        prompt = self._retired.pop(slot, None)
        if prompt is not None and self._prefixes is not None:
            self._prefixes.keep(self._context, slot, prompt)
        self._context.truncate(slot, 0)

    def _best(self, prompt: IntArray) -> int:
        """Return the free slot with most of the prompt's beginning in it, else the first one."""
        free = [slot for slot, sequence in enumerate(self._slots) if sequence is None]
        none = prompt[:0]
        return max(
            free, key=lambda slot: (common_prefix_length(prompt, self._retired.get(slot, none)), -slot)
        )
