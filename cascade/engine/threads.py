"""How many threads a decode may use."""

from __future__ import annotations

import os
from pathlib import Path

# Below this size a decode is too short for threads to pay for waking each other up.
SMALL_BYTES = 64 * 2**20
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads(model_bytes: int) -> int:
    """Return the threads for a model of that size: one for small ones, else one less than the cores.

    With all cores, one busy neighbour slows every decode four times (OpenMP threads spin on each other).
    """
    return 1 if model_bytes < SMALL_BYTES else max(1, cores() - 1)


def cores() -> int:
    """Return the cores that this process may use: its affinity, further limited by a container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no quota ("max")
        return count
