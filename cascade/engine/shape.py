"""The size and kind of a context."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

MAX_BATCH = 512
MAX_BRANCHES = 255  # of 256 sequence ids; more make llama.cpp abort
_OUTPUT_FLOATS = 2**24  # 64 MiB of logits in one decode


class Shape(NamedTuple):
    """How a context is made.

    `n_ctx` is the tokens that one sequence may have, `n_threads` the threads of a decode. A context is for
    a prompt with `branches` that share its cells, or for `slots` sequences: each with cells of its own, or
    `packed` into one pool of `n_ctx` cells, so that prompts of any length make one matrix. `flash` turns
    flash attention on. `adapter` is the LoRA file that it decodes with.
    """

    n_ctx: int
    n_threads: int
    branches: int = 0
    slots: int = 1
    packed: bool = False
    flash: bool = False
    adapter: Path | None = None

    @property
    def cells(self) -> int:
        """Tokens that the context has room for."""
        return self.n_ctx if self.packed or self.branches else self.n_ctx * self.slots

    @property
    def sequences(self) -> int:
        """Sequence ids that the context has."""
        return max(self.slots, 1 + self.branches)

    def rows(self, n_vocab: int) -> int:
        """Logits rows of one decode that memory is spent on; a tree needs one of every token."""
        return 2 * _OUTPUT_FLOATS // n_vocab if self.branches else max(self.slots, _OUTPUT_FLOATS // n_vocab)


def most_branches(n_ctx: int, n_vocab: int) -> int:
    """Return the most branches of a context: with the prompt, as many as it gives logits rows."""
    rows = min(n_ctx, MAX_BATCH, Shape(n_ctx, 1, branches=1).rows(n_vocab))
    return max(1, min(MAX_BRANCHES, rows - 1))
