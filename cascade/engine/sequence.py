"""One prompt that a scheduler continues, and its part of a decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.threads import is_contended
from cascade.engine.ticket import Stepper, Ticket
from cascade.errors import CascadeError

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
ChooseToken = Callable[[FloatArray, int], int | None]
OnPromptLogits = Callable[[int, FloatArray], object]


class DecodeSequence(Ticket):
    """One prompt to continue.

    Attributes:
        prompt: its tokens, shape (tokens,).
        choose: called with a logits row and its index among the decode's outputs, counted from the end (-1 is
            the last); returns the next token, or None to end the sequence.
        on_prompt_logits: called with each evaluated prompt position but the last, and the logits row after
            it.
        on_start: called when the sequence gets its slot.
        cells: tokens that it may grow to.
        error: why it failed.
        max_batch: the most sequences that shared a decode with it, itself included.
        reused: prompt tokens that were copied instead of evaluated.
        started_at: when it got its slot, by `time.monotonic`; 0 before.
        slot: the slot of its tokens; -1 while it waits.
        skipped: consecutive decodes that had no part of it while it had a slot.
        length: tokens evaluated.
        next_token: the token to evaluate next, once the prompt is read.
        wall, expected: seconds that its decodes took, and should have taken.
        min_threads: the fewest threads that one of them used; 0 before.
    """

    def __init__(
        self,
        stepper: Stepper,
        prompt: IntArray,
        choose: ChooseToken,
        *,
        on_prompt_logits: OnPromptLogits | None = None,
        on_start: Callable[[], object] = lambda: None,
        new_cells: int = 0,
    ) -> None:
        """Make a sequence that may add `new_cells` tokens to its prompt."""
        super().__init__(stepper)
        self.prompt, self.choose = prompt, choose
        self.on_prompt_logits, self.on_start = on_prompt_logits, on_start
        self.cells = len(prompt) + new_cells
        self.error: CascadeError | None = None
        self.max_batch = self.reused = self.length = self.skipped = self.min_threads = 0
        self.started_at = self.wall = self.expected = 0.0
        self.slot = -1
        self.next_token: int | None = None

    def meta(self) -> dict[str, Any]:
        """Return what the trace records about how it was decoded."""
        meta: dict[str, Any] = {"batch": self.max_batch, "n_threads": self.min_threads}
        if self.reused:
            meta["prefix_tokens"] = self.reused
        if is_contended(self.wall, self.expected):
            meta["contention"] = round(self.wall / self.expected, 2)
        return meta

    @property
    def unread(self) -> int:
        """Prompt tokens still to evaluate; 0 or negative while the sequence generates."""
        return len(self.prompt) - self.length


class DecodePart(NamedTuple):
    """The part of a sequence in one decode: its tokens up to `end`, the last `outputs` with a logits row."""

    sequence: DecodeSequence
    end: int
    outputs: int

    @property
    def tokens(self) -> int:
        """Tokens to evaluate; valid until the decode is added to the sequence's length."""
        return self.end - self.sequence.length
