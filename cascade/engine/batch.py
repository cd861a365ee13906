"""The tokens of one decode, in llama.cpp's own layout.

A batch refuses whatever would make llama.cpp abort the process: too many tokens or logits rows, or a
sequence id out of range.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.binding import api
from cascade.errors import ModelError

IntArray = npt.NDArray[np.int32]


def even_part_size(count: int, max_size: int) -> int:
    """Split `count` into as few equal parts as `max_size` allows; return the size of a part."""
    parts = -(-count // max_size)
    return -(-count // parts)


class BatchLimits(NamedTuple):
    """Upper bounds of one decode: tokens, logits rows, sequences, and branches of a label tree."""

    tokens: int
    rows: int
    sequences: int
    branches: int


class Batch:
    """NumPy arrays that llama.cpp reads directly, so that filling them needs no ctypes call per token.

    Attributes:
        limits: the bounds of its context.
        rows: number of logits rows requested so far.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.limits, self.rows, self._count = limits, 0, 0
        size = limits.tokens
        self._token = np.zeros(size, np.int32)
        self._pos = np.zeros(size, np.int32)
        self._n_seq = np.ones(size, np.int32)
        self._seq = np.zeros((size, 1 + limits.branches), np.int32)
        self._output = np.zeros(size, np.int8)
        rows = self._seq.ctypes.data + np.arange(size, dtype=np.uintp) * self._seq.strides[0]
        self._seq_rows = np.append(rows, 0).astype(np.uintp)
        pointer = ctypes.POINTER
        self._struct = api.llama_batch()
        self._struct.token = ctypes.cast(self._token.ctypes.data, pointer(api.llama_token))
        self._struct.pos = ctypes.cast(self._pos.ctypes.data, pointer(api.llama_pos))
        self._struct.n_seq_id = ctypes.cast(self._n_seq.ctypes.data, pointer(ctypes.c_int32))
        self._struct.seq_id = ctypes.cast(self._seq_rows.ctypes.data, pointer(pointer(api.llama_seq_id)))
        self._struct.logits = ctypes.cast(self._output.ctypes.data, pointer(ctypes.c_int8))

    def clear(self) -> None:
        """Remove all tokens."""
        self._count = self.rows = 0

    def take(self) -> Any:
        """Return llama.cpp's view of the batch and clear it. The view is valid until the next fill."""
        self._struct.n_tokens = self._count
        self.clear()
        return self._struct

    def fill_steps(self, slots: Sequence[int], tokens: Sequence[int], positions: Sequence[int]) -> None:
        """Fill the batch with one token for each of `slots`; every token gets a logits row."""
        count = len(slots)
        self._check(count, count)
        self.check_slots(slots)
        self._token[:count] = tokens
        self._pos[:count] = positions
        self._n_seq[:count] = 1
        self._seq[:count, 0] = slots
        self._output[:count] = 1
        self._count = self.rows = count

    def add(self, slot: int, tokens: IntArray, start: int, rows: int) -> None:
        """Add `tokens` to `slot` from position `start`; the last `rows` of them get a logits row."""
        first, last = self._count, self._count + len(tokens)
        self._check(last if len(tokens) else 0, self.rows + rows)
        self.check_slots((slot,))
        self._token[first:last] = tokens
        self._pos[first:last] = np.arange(start, start + len(tokens))
        self._n_seq[first:last] = 1
        self._seq[first:last, 0] = slot
        self._output[first:last] = 0
        self._output[last - rows : last] = 1
        self._count, self.rows = last, self.rows + rows

    def fill_branches(
        self, tokens: Sequence[int], positions: Sequence[int], branches: Sequence[Sequence[int]]
    ) -> None:
        """Fill the batch with one token for each list of `branches` (1-based); each gets a logits row."""
        count = len(tokens)
        self._check(count, count)
        self._token[:count] = tokens
        self._pos[:count] = positions
        self._output[:count] = 1
        for row, ids in enumerate(branches):
            if not ids or min(ids) < 1 or max(ids) > self.limits.branches:
                raise ModelError(f"branches {list(ids)} are outside 1 … {self.limits.branches}")
            self._n_seq[row] = len(ids)
            self._seq[row, : len(ids)] = ids
        self._count = self.rows = count

    def check_slots(self, slots: Sequence[int]) -> None:
        """Raise ModelError if a slot is not a sequence of the context."""
        if min(slots) < 0 or max(slots) >= self.limits.sequences:
            raise ModelError(f"sequences {list(slots)} are outside 0 … {self.limits.sequences - 1}")

    def _check(self, count: int, rows: int) -> None:
        if not 0 < count <= self.limits.tokens:
            raise ModelError(f"a batch of {count} tokens; this context takes 1 … {self.limits.tokens}")
        if rows > self.limits.rows:
            raise ModelError(f"{rows} outputs in one batch; this context gives at most {self.limits.rows}")
