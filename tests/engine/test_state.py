"""The memory of saved sequences."""

from __future__ import annotations

import gc
import os
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from cascade.engine.memory import allocate_state


def resident() -> int:
    """Return this process's resident bytes."""
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
