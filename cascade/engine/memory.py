"""Large memory pages for what llama.cpp allocates.

A decode reads every weight once. In pages of 4 KiB that costs a table walk each, which Linux avoids only in
memory that asks for large pages, and llama.cpp does not ask: 7 % of the tokens a second of a 135 M model.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

_MAPS = Path("/proc/self/maps")

_MIN_MAPPING_BYTES = 4 * 2**20  # bytes of a mapping that is worth it

_HUGEPAGE, _COLLAPSE = 14, 25  # Linux's MADV_HUGEPAGE, and MADV_COLLAPSE from 6.1 on

_OWN_PAGES_BYTES = 2**16  # smaller arrays are left to the allocator
_Range = tuple[int, int]
_ByteArray = npt.NDArray[np.uint8]


@contextmanager
def large_pages() -> Iterator[None]:
    """Ask for large pages in the memory that is allocated meanwhile; no effect where the system has none."""
    before = _allocated()
    yield
    for first, last in _allocated() - before:
        _advise(first, last, _HUGEPAGE)
        _advise(first, last, _COLLAPSE)


def _allocated() -> set[_Range]:
    """Return the private anonymous mappings that can be written, but for the stacks of threads."""
    try:
        lines = _MAPS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return set()
    found: set[_Range] = set()
    guarded = 0  # where a mapping ends that nobody may touch: a thread's stack begins there
    for line in lines:
        bounds, access, *rest = line.split()
        first, last = (int(part, 16) for part in bounds.split("-"))
        anonymous = len(rest) == 3 and rest[2] == "0"
        if access == "rw-p" and anonymous and last - first >= _MIN_MAPPING_BYTES and first != guarded:
            found.add((first, last))
        if access == "---p":
            guarded = last
    return found


def _advise(first: int, last: int, advice: int) -> None:
    """Give the kernel an advice; a refusal changes nothing but the speed."""
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)


def allocate_state(size: int) -> _ByteArray:
    """Return memory for a state that is kept, shape (size,), which goes back to the system when it is freed.

    glibc's arenas of threads do not fill the holes that such large pieces leave: they grow without end.
    """
    if size < _OWN_PAGES_BYTES:
        return np.empty(size, np.uint8)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
