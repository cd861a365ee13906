"""How many threads a decode uses: the default, detecting contention, and backing off from it.

The threads of a decode spin for each other after every operation. If one of them shares its core with another
process, all wait for it, and half as many threads are faster (docs/engine.md, Contention). Results do not
depend on the number of threads: llama.cpp computes each number on one thread.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

SMALL_BYTES = (
    64 * 2**20
)  # decodes of a smaller model are too short for threads to pay for waking each other up
_QUOTA = Path("/sys/fs/cgroup/cpu.max")

# A reply reports contention from here on. Decodes of one size vary by up to 1.3 on an idle machine, and a
# single pause of the thread is not contention.
_CONTENTION_RATIO = 1.5
_CONTENTION_SECONDS = 0.05
_BEST_GROWTH = (
    1.01  # the best known time grows by this much with each decode, so that an outlier is forgotten
)
# Decodes count as similar if they have the same number of tokens, in steps beyond the small ones, and
# similar depth.
_SMALL_TOKENS, _TOKEN_STEP, _DEPTH_STEP = 16, 16, 512

_SLOW_RATIO = 2.0  # far more than decodes of one size differ on an idle machine
_MIN_DECODES = 8  # enough to tell a busy neighbor from a single pause
_MIN_LOST_SECONDS = 0.15  # what they must have lost together
_WINDOW_SECONDS = 1.0  # seconds of decoding after which a new window starts
_FIRST_PAUSE, _MAX_PAUSE = 2.0, 60.0  # seconds of decoding until all threads are tried again


def default_threads(model_bytes: int) -> int:
    """Return the threads for a model of `model_bytes`: one if it is small, else one less than the cores.

    With all cores in use, one busy neighbor slows every decode four times (OpenMP threads spin on each
    other).
    """
    return 1 if model_bytes < SMALL_BYTES else max(1, available_cores() - 1)


def available_cores() -> int:
    """Return the cores this process may use: those of its affinity mask, limited by a container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no quota ("max")
        return count


def is_contended(wall: float, expected: float) -> bool:
    """Return whether decodes that took `wall` seconds instead of `expected` are worth reporting."""
    return wall >= _CONTENTION_RATIO * expected and wall - expected >= _CONTENTION_SECONDS


class DecodeTimes:
    """The fastest time so far for each size of decode."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._best: dict[tuple[int, int], float] = {}

    def expected(self, tokens: int, depth: int, wall: float, cpu: float, threads: int) -> float:
        """Return the seconds that a decode should have taken with all threads.

        With one thread this is its own CPU time: time spent waiting for a core was someone else's. Several
        threads wait for each other by spinning, which is CPU time too, so there the fastest decode of a
        similar size is the reference.

        Args:
            tokens: tokens of the decode.
            depth: length of its longest sequence.
            wall: seconds that it took.
            cpu: CPU seconds of the decode thread.
            threads: threads that it used; with fewer than all, it does not change the reference.
        """
        if self._n_threads == 1:
            return min(wall, cpu)
        size = tokens if tokens <= _SMALL_TOKENS else _SMALL_TOKENS + tokens // _TOKEN_STEP
        key = size, depth // _DEPTH_STEP
        if threads < self._n_threads:
            return self._best.get(key, wall)
        best = min(wall, self._best.get(key, wall) * _BEST_GROWTH)
        self._best[key] = best
        return best


class ThreadBackoff:
    """Chooses the number of threads for the next decode.

    Once most decodes take twice as long as they should, it uses half of the threads. It tries all of them
    again after a pause, which doubles each time that fails, and at once if half of them are no faster.

    Attributes:
        threads: threads for the next decode.
    """

    def __init__(self, max_threads: int) -> None:
        """Start with all of `max_threads` threads."""
        self.threads = self._max_threads = max_threads
        self._pause = _FIRST_PAUSE
        self._full_ratio = math.inf  # slow-down with all threads at the time of the last back-off
        self._start_window(max_threads, 0.0)

    def record(self, wall: float, expected: float) -> None:
        """Record the seconds that a decode took, and those it should have taken with all threads."""
        self._wall += wall
        self._expected += expected
        self._slow += wall >= _SLOW_RATIO * expected
        self._decodes += 1
        self._remaining -= wall
        if self._max_threads == 1 or self._decodes < _MIN_DECODES:
            return
        ratio = self._wall / self._expected
        mostly_slow = 2 * self._slow >= self._decodes
        lost = self._wall - self._expected
        if self.threads < self._max_threads:
            if ratio >= self._full_ratio:
                self._start_window(self._max_threads, _MAX_PAUSE)
            elif self._remaining <= 0:
                self._start_window(self._max_threads, 0.0)
        elif mostly_slow and self._remaining <= 0 and lost >= _MIN_LOST_SECONDS:
            self._full_ratio = ratio
            self._start_window(self._max_threads // 2, self._pause)
            self._pause = min(2 * self._pause, _MAX_PAUSE)
        elif self._wall >= _WINDOW_SECONDS:
            if not mostly_slow:
                self._pause = _FIRST_PAUSE
            self._start_window(self._max_threads, self._remaining)

    def _start_window(self, threads: int, seconds: float) -> None:
        """Start a new window with `threads`, to keep for `seconds` of decoding."""
        self.threads = threads
        self._remaining = seconds
        self._wall = self._expected = 0.0
        self._slow = self._decodes = 0
