"""Noticing that decodes take longer than they should, because something else uses the cores."""

from __future__ import annotations

# A reply reports a slow-down from here on. Decodes of one size vary by up to 1.3 on an idle machine, and a
# single pause of the thread is no contention.
CONTENTION = 1.5
_LOST = 0.05  # seconds
_FORGET = 1.01  # the fastest time known grows by this much a decode, so that an outlier is forgotten
_SMALL, _STEP, _DEPTH = 16, 16, 512  # decodes are alike that have as many tokens and are as deep


class Pace:
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


def contended(wall: float, expected: float) -> bool:
    """Whether decodes that took `wall` seconds in place of `expected` are worth reporting."""
    return wall >= CONTENTION * expected and wall - expected >= _LOST
