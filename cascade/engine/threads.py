"""How many threads a decode may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# Below this size a decode is too short for threads to pay for waking each other up.
SMALL_BYTES = 64 * 2**20
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads(model_bytes: int) -> int:
    """Return the threads for a model of that size: one for small ones, else one less than the cores.

    With all cores, one busy neighbour slows every decode four times (OpenMP threads spin on each other).
    """
    return 1 if model_bytes < SMALL_BYTES else max(1, available_cores() - 1)


def available_cores() -> int:
    """Return the cores that this process may use: its affinity, further limited by a container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no quota ("max")
        return count


# A reply reports a slow-down from here on. Decodes of one size vary by up to 1.3 on an idle machine, and a
# single pause of the thread is no contention.
CONTENTION = 1.5
_CONTENTION_SECONDS = 0.05  # seconds
_FORGET = 1.01  # the fastest time known grows by this much a decode, so that an outlier is forgotten
_SMALL, _STEP, _DEPTH = 16, 16, 512  # decodes are alike that have as many tokens and are as deep


class DecodeTimes:
    """The fastest time per decode size so far."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._best: dict[tuple[int, int], float] = {}

    def expected(self, tokens: int, depth: int, wall: float, cpu: float, threads: int) -> float:
        """Return the seconds that a decode should have taken with all threads.

        With one thread that is its own CPU time: what it waited for a core was someone else's. More threads
        wait for each other by spinning, which is CPU time too, so there the fastest decode of a similar size
        counts.

        Args:
            tokens: tokens of the decode.
            depth: length of its longest sequence.
            wall: seconds that it took.
            cpu: seconds of CPU that the decode thread used.
            threads: that it used; with fewer than all it says nothing about the others.
        """
        if self._n_threads == 1:
            return min(wall, cpu)
        key = tokens if tokens <= _SMALL else _SMALL + tokens // _STEP, depth // _DEPTH
        if threads < self._n_threads:
            return self._best.get(key, wall)
        best = min(wall, self._best.get(key, wall) * _FORGET)
        self._best[key] = best
        return best


def is_contended(wall: float, expected: float) -> bool:
    """Whether decodes that took `wall` seconds in place of `expected` are worth reporting."""
    return wall >= CONTENTION * expected and wall - expected >= _CONTENTION_SECONDS


_SLOW = 2.0  # times longer than it should: far more than decodes of one size differ on an idle machine
_FEW = 8  # decodes that tell a neighbour from a single pause
_LOST_SECONDS = 0.15  # seconds that they must have cost
_WINDOW = 1.0  # seconds of decoding after which they are judged anew
_FIRST_PAUSE, _MAX_PAUSE = 2.0, 60.0  # seconds of decoding until all threads are tried again


class ThreadBackoff:
    """How many threads the next decode should use.

    Half of them, once most decodes take twice as long as they should. All are tried again after a pause,
    which doubles as long as that fails; and at once where half of them are no faster.

    Attributes:
        threads: of the next decode.
    """

    def __init__(self, most: int) -> None:
        """Begin with all of `most` threads."""
        self.threads = self._most = most
        self._pause = _FIRST_PAUSE
        self._slow_down = math.inf  # with all threads, when fewer were tried
        self._use(most, 0.0)

    def note(self, wall: float, expected: float) -> None:
        """Take in a decode: the seconds that it took, and that it should have taken with all threads."""
        self._wall += wall
        self._expected += expected
        self._slow += wall >= _SLOW * expected
        self._decodes += 1
        self._left -= wall
        if self._most == 1 or self._decodes < _FEW:
            return
        slow_down = self._wall / self._expected
        if self.threads < self._most:
            if slow_down >= self._slow_down:
                self._use(self._most, _MAX_PAUSE)
            elif self._left <= 0:
                self._use(self._most, 0.0)
        elif (
            2 * self._slow >= self._decodes
            and self._left <= 0
            and self._wall - self._expected >= _LOST_SECONDS
        ):
            self._slow_down = slow_down
            self._use(self._most // 2, self._pause)
            self._pause = min(2 * self._pause, _MAX_PAUSE)
        elif self._wall >= _WINDOW:
            if 2 * self._slow < self._decodes:
                self._pause = _FIRST_PAUSE
            self._use(self._most, self._left)

    def _use(self, threads: int, seconds: float) -> None:
        """Begin a new window with `threads`, to be kept for `seconds` of decoding."""
        self.threads = threads
        self._left = seconds
        self._wall = self._expected = 0.0
        self._slow = self._decodes = 0
