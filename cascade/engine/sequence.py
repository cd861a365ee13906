"""One prompt that a scheduler continues, and its part of a decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.threads import is_contended
from cascade.engine.worker import Stepper, Ticket
from cascade.errors import CascadeError

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
ChooseToken = Callable[[FloatArray, int], int | None]
OnPromptLogits = Callable[[int, FloatArray], object]


class DecodeSequence(Ticket):
    """One prompt to continue.

    Attributes:
        prompt: its tokens, shape (tokens,).
        take: given a logits row and its index among the decode's outputs counted from the end (-1 is the
            last), returns the next token, or None when it is done.
        watch: given a prompt position and the logits row after it, for every evaluated position but the last.
        cells: tokens that it may have in the end, `room` more than its prompt.
        error: why it failed.
        batch: most sequences that shared a decode with it, itself included.
        reused: prompt tokens that were copied instead of evaluated.
        begin: called when it gets its slot.
        placed: when it got its slot, by `time.monotonic`; 0 before.
        slot: where its tokens are; -1 while it waits.
        passed: decodes in a row that had nothing of it while it had a slot.
        length: tokens evaluated.
        next: the token to evaluate once the prompt is.
        wall, expected: seconds that its decodes took, and should have taken.
        threads: fewest that one of them used; 0 before.
    """

    def __init__(
        self,
        stepper: Stepper,
        prompt: IntArray,
        take: ChooseToken,
        *,
        watch: OnPromptLogits | None = None,
        begin: Callable[[], object] = lambda: None,
        room: int = 0,
    ) -> None:
        super().__init__(stepper)
        self.prompt, self.take, self.watch, self.begin = prompt, take, watch, begin
        self.cells = len(prompt) + room
        self.error: CascadeError | None = None
        self.batch = self.reused = self.length = self.passed = self.threads = 0
        self.placed = self.wall = self.expected = 0.0
        self.slot = -1
        self.next: int | None = None

    def meta(self) -> dict[str, Any]:
        """Return what the trace says about how it was decoded."""
        found: dict[str, Any] = {"batch": self.batch, "n_threads": self.threads}
        if self.reused:
            found["prefix_tokens"] = self.reused
        if is_contended(self.wall, self.expected):
            found["contention"] = round(self.wall / self.expected, 2)
        return found

    @property
    def left(self) -> int:
        """Prompt tokens that are still to be evaluated; 0 or less while it writes."""
        return len(self.prompt) - self.length


class DecodePart(NamedTuple):
    """What one sequence has in a decode: its tokens up to `end`, the last `outputs` with a logits row."""

    sequence: DecodeSequence
    end: int
    outputs: int

    @property
    def tokens(self) -> int:
        """Tokens to evaluate, before the decode is counted in the sequence."""
        return self.end - self.sequence.length
