"""Fewer threads while other processes use the cores.

The threads of a decode spin for each other after every operation. Where one of them has to share its core,
all wait for it, and half as many threads are faster (docs/engine.md, Contention). Results do not depend on
it: llama.cpp gives each number to one thread.
"""

from __future__ import annotations

import math

_SLOW = 2.0  # times longer than it should: far more than decodes of one size differ on an idle machine
_FEW = 8  # decodes that tell a neighbour from a single pause
_LOST = 0.15  # seconds that they must have cost
_WINDOW = 1.0  # seconds of decoding after which they are judged anew
_FIRST, _LONGEST = 2.0, 60.0  # seconds of decoding until all threads are tried again


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
        self._pause = _FIRST
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
                self._use(self._most, _LONGEST)
            elif self._left <= 0:
                self._use(self._most, 0.0)
        elif 2 * self._slow >= self._decodes and self._left <= 0 and self._wall - self._expected >= _LOST:
            self._slow_down = slow_down
            self._use(self._most // 2, self._pause)
            self._pause = min(2 * self._pause, _LONGEST)
        elif self._wall >= _WINDOW:
            if 2 * self._slow < self._decodes:
                self._pause = _FIRST
            self._use(self._most, self._left)

    def _use(self, threads: int, seconds: float) -> None:
        """Begin a new window with `threads`, to be kept for `seconds` of decoding."""
        self.threads = threads
        self._left = seconds
        self._wall = self._expected = 0.0
        self._slow = self._decodes = 0
