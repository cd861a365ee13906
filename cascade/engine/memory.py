"""How memory is requested from the system: large pages for weights, separate pages for saved states."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

_MAPS = Path("/proc/self/maps")
_MIN_MAPPING_BYTES = 4 * 2**20  # smaller mappings gain nothing
_HUGEPAGE, _COLLAPSE = 14, 25  # Linux's MADV_HUGEPAGE, and MADV_COLLAPSE from 6.1 on
_MIN_MMAP_BYTES = 2**16  # smaller arrays are left to the allocator
_Range = tuple[int, int]


@contextmanager
def large_pages() -> Iterator[None]:
    """Ask for large pages for all memory allocated inside the block; no effect where the system has none.

    A decode reads every weight once. With pages of 4 KiB each read costs a table walk, which Linux avoids
    only for memory that asks for large pages. llama.cpp does not ask, which costs a 135 M model 7 % of its
    tokens per second.
    """
    before = _anonymous_mappings()
    yield
    for start, end in _anonymous_mappings() - before:
        _advise(start, end, _HUGEPAGE)
        _advise(start, end, _COLLAPSE)


def allocate_state(size: int) -> npt.NDArray[np.uint8]:
    """Return memory for a long-lived state, shape (size,), that goes back to the system when it is freed.

    glibc's per-thread arenas do not fill the holes that such large blocks leave, so they would grow forever.
    """
    if size < _MIN_MMAP_BYTES:
        return np.empty(size, np.uint8)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)


def _anonymous_mappings() -> set[_Range]:
    """Return the private, writable, anonymous mappings, without thread stacks."""
    try:
        lines = _MAPS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return set()
    mappings: set[_Range] = set()
    guard_end = 0  # end of the last inaccessible mapping; a thread's stack starts there
    for line in lines:
        bounds, access, *rest = line.split()
        start, end = (int(part, 16) for part in bounds.split("-"))
        anonymous = len(rest) == 3 and rest[2] == "0"
        if access == "rw-p" and anonymous and end - start >= _MIN_MAPPING_BYTES and start != guard_end:
            mappings.add((start, end))
        if access == "---p":
            guard_end = end
    return mappings


def _advise(start: int, end: int, advice: int) -> None:
    """Advise the kernel; a refusal only costs speed."""
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)
