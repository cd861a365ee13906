"""Large pages go to what is allocated inside the block only, and saved states give their memory back."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import threading
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from cascade.engine.memory import allocate_state, large_pages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SIZE = 32 * 2**20
needs_large_pages = pytest.mark.skipif(
    not SETTING.is_file() or "[never]" in SETTING.read_text(), reason="this system has no large pages"
)


def allocate() -> tuple[mmap.mmap, int]:
    """Return private memory with every page touched, and its address."""
    memory = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(b"1" * SIZE)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def advised(address: int) -> bool:
    """Return whether the mapping at `address` was advised to use large pages (`hg` among its flags)."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if "-" in name and not name.endswith(":"):
            first, last = (int(part, 16) for part in name.split("-"))
            inside = first <= address < last
        elif inside and name == "VmFlags:":
            return "hg" in rest.split()
    raise AssertionError(f"no mapping at {address:#x}")


@needs_large_pages
def test_memory_allocated_inside_gets_large_pages_and_keeps_its_content() -> None:
    with large_pages():
        memory, address = allocate()
    assert advised(address)
    assert memory[:] == b"1" * SIZE


@needs_large_pages
def test_memory_from_before_or_after_is_left_alone() -> None:
    _before, earlier = allocate()
    with large_pages():
        pass
    _after, later = allocate()
    assert (advised(earlier), advised(later)) == (False, False)


@needs_large_pages
def test_the_stack_of_a_thread_is_left_alone() -> None:
    started, done = threading.Event(), threading.Event()
    seen: list[int] = []

    def wait() -> None:
        local = ctypes.c_int(0)
        seen.append(stack_pointer())
        started.set()
        done.wait()
        del local

    before = threading.stack_size(64 * 2**20)
    with large_pages():
        thread = threading.Thread(target=wait)
        thread.start()
        started.wait()
    threading.stack_size(before)
    try:
        assert not advised(seen[0])
    finally:
        done.set()
        thread.join()


def stack_pointer() -> int:
    """Return an address inside the calling thread's stack, from the C library."""
    attributes = ctypes.create_string_buffer(128)
    address, size = ctypes.c_void_p(), ctypes.c_size_t()
    library = ctypes.CDLL(None)
    library.pthread_self.restype = ctypes.c_void_p
    library.pthread_getattr_np(ctypes.c_void_p(library.pthread_self()), attributes)
    library.pthread_attr_getstack(attributes, ctypes.byref(address), ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    assert address.value
    return address.value + size.value - 4096


def resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("size", [0, 1, 2**16 - 1, 2**16, 10**6 + 7])
def test_memory_of_any_size_can_be_written(size: int) -> None:
    state = allocate_state(size)
    state[:] = 7
    assert state.shape == (size,)
    assert int(state.sum()) == 7 * size


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_freed_states_go_back_to_the_system() -> None:
    size, kept = 2**22, deque[np.ndarray]()
    for _ in range(16):
        kept.append(allocate_state(size))
        kept[-1][:] = 1
    full = resident()
    kept.clear()
    gc.collect()
    assert resident() < full - 15 * size
