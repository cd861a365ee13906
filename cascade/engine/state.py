"""Saved sequences: their memory, and how they are made to fit a context with another number of slots.

After a header llama.cpp writes the number of slots (a 32-bit word), then for each the number of its cells
(another) and, if there are any, the cells. It refuses a state from a context with another number of slots,
although only one slot of a saved sequence has cells.
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]


_HEADER = 2  # words before all that: a magic number and the sequence


_PAGES = 2**16  # bytes; smaller pieces are left to the allocator


def lasting(size: int) -> ByteArray:
    """Return memory for a state that is kept, shape (size,), which goes back to the system when it is freed.

    glibc's arenas of threads do not fill the holes that such large pieces leave: they grow without end.
    """
    if size < _PAGES:
        return np.empty(size, np.uint8)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)


def refit(state: ByteArray, slots: int) -> ByteArray | None:
    """Return `state` for a context of `slots` slots; None if it is not laid out as above."""
    words = state[: len(state) // 4 * 4].view(np.uint32)
    if len(words) <= _HEADER:
        return None
    before = int(words[_HEADER])
    if before == slots:
        return state
    filled = np.flatnonzero(words[_HEADER + 1 : _HEADER + 1 + before])
    if not len(filled):
        return None
    first = 4 * (_HEADER + 1 + int(filled[0]))
    end = len(state) - 4 * (before - 1 - int(filled[0]))
    if state[end:].any():
        return None
    return np.concatenate([
        state[: 4 * _HEADER], _bytes(slots), state[first:end], _bytes(*[0] * (slots - 1)),
    ])  # fmt: skip


def _bytes(*words: int) -> ByteArray:
    return np.array(words, np.uint32).view(np.uint8)
