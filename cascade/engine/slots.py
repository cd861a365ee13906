"""Which sequence has which slot of a context, and which tokens unused slots still hold."""

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

    A slot keeps the prompt of its last sequence until the next one takes it, for prompts that start alike.
    """

    def __init__(self, context: Context, prefixes: PrefixCache | None) -> None:
        self._context = context
        self._prefixes = prefixes
        self._slots: list[DecodeSequence | None] = [None] * context.shape.slots
        self._retired: dict[int, IntArray] = {}  # unused slot → the prompt that is still in it

    @property
    def used(self) -> list[DecodeSequence]:
        """The sequences that have a slot."""
        return [sequence for sequence in self._slots if sequence is not None]

    @property
    def free(self) -> bool:
        """Whether a slot is free."""
        return None in self._slots

    @property
    def unreserved_cells(self) -> int:
        """Cells of a shared pool that no running sequence may grow into."""
        return self._context.shape.n_ctx - sum(sequence.cells for sequence in self.used)

    def will_share_prefix(self, sequence: DecodeSequence) -> bool:
        """Return whether a prompt being read will soon have evaluated more of a prefix that both share."""
        prefixes = self._prefixes
        if prefixes is None or sequence.on_prompt_logits or len(sequence.prompt) <= prefixes.min_tokens:
            return False
        wanted = sequence.prompt[:-1]
        return any(
            common_prefix_length(wanted, other.prompt) >= max(prefixes.min_tokens, other.length + 1)
            for other in self.used
            if other.unread > 0
        )

    def occupy(self, sequence: DecodeSequence) -> None:
        """Give `sequence` a free slot that holds as much of its prompt as is known."""
        slot = self._slots.index(None)
        if self._prefixes is not None:
            slot = self._best_free_slot(sequence.prompt)
            held = self._retired | {other.slot: other.prompt[: other.length] for other in self.used}
            if sequence.on_prompt_logits is None:
                sequence.length = self._prefixes.fill_slot(self._context, slot, sequence.prompt, held)
                sequence.reused = sequence.length
                self._retired.pop(slot, None)
            else:  # every position must be evaluated
                self._evict(slot)
        sequence.slot, sequence.started_at = slot, time.monotonic()
        self._slots[slot] = sequence
        sequence.on_start()

    def release(self, sequence: DecodeSequence) -> None:
        """Free the slot of `sequence`."""
        slot, sequence.slot = sequence.slot, -1
        self._slots[slot] = None
        prompt = sequence.prompt[: sequence.length]
        if self._prefixes is None or len(prompt) < self._prefixes.min_tokens:
            self._context.truncate(slot, 0)
        else:
            self._retired[slot] = prompt

    def close_gaps(self) -> None:
        """Move the last sequences into gaps, because llama.cpp splits a batch at gaps between slots."""
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
        """Grow to `slots` slots, and copy what is in the old ones.

        Raises:
            ModelError: there is not enough memory; the slots are then as before.
        """
        states = {s: self._context.save(s.slot) for s in self.used if s.length}
        for slot in list(self._retired):
            self._evict(slot)
        old_slots = self._context.shape.slots
        try:
            self._context.resize(slots)
        except ModelError:
            self._context.resize(old_slots)
            raise
        finally:
            for sequence, state in states.items():
                if not self._context.restore(sequence.slot, state):
                    sequence.length = 0
                    sequence.error = ModelError("llama.cpp cannot move a sequence to a larger context")
        self._slots += [None] * (slots - old_slots)

    def _evict(self, slot: int) -> None:
        """Empty an unused slot, and save the prompt that is still in it."""
        prompt = self._retired.pop(slot, None)
        if prompt is not None and self._prefixes is not None:
            self._prefixes.save(self._context, slot, prompt)
        self._context.truncate(slot, 0)

    def _best_free_slot(self, prompt: IntArray) -> int:
        """Return the free slot that holds the longest prefix of `prompt`, the first among equals."""
        free = [slot for slot, sequence in enumerate(self._slots) if sequence is None]
        empty = prompt[:0]
        return max(
            free, key=lambda slot: (common_prefix_length(prompt, self._retired.get(slot, empty)), -slot)
        )
