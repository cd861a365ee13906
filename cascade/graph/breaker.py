"""A circuit breaker: a model that keeps failing is not called for a while. No I/O; the clock is passed in.

closed: calls go through; enough failures open it. open: nothing goes through for `seconds`. half-open: one
call, the probe, goes through; its success closes the breaker and its failure opens it again. (The pattern is
Michael Nygard's, Release It!, 2007.)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from cascade._fork import forget_after_fork
from cascade.spec.parts import BreakerConfig

State = Literal["closed", "open", "half_open"]


class Permit(NamedTuple):
    """Permission to make one call; `era` tells a late outcome from one that still counts."""

    era: int
    probe: bool


class Breaker:
    """Counts the failures of one model. May be used from any thread.

    Args:
        config: when it opens, and for how long.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, config: BreakerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._era = 0  # changes with every change of the state
        self._opened: float | None = None
        self._streak = 0
        self._recent: deque[bool] = deque(maxlen=config.window)
        self._why = ""
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        self._lock = threading.Lock()
        self._probing = False  # the probe is the parent's

    @property
    def state(self) -> State:
        """The state now."""
        if self._opened is None:
            return "closed"
        return "half_open" if self._clock() >= self._opened + self._config.seconds else "open"

    def refusal(self) -> str | None:
        """Return why no call can be made now, or None if one can."""
        with self._lock:
            return self._refusal()

    def acquire(self) -> Permit | str:
        """Return a permit for one call, or why there is none. Give the permit back with `release`."""
        with self._lock:
            refusal = self._refusal()
            if refusal is not None:
                return refusal
            self._probing = self._opened is not None
            return Permit(self._era, self._probing)

    def release(self, permit: Permit, worked: bool | None) -> None:
        """Report how a call ended: True if it worked, False if it failed, None if neither says anything."""
        with self._lock:
            if permit.era != self._era:  # the state has changed since, so the outcome is stale
                return
            if permit.probe:
                self._probing = False
            if worked is None:
                return
            self._recent.append(worked)
            self._streak = 0 if worked else self._streak + 1
            if permit.probe:
                self._change(None if worked else "the probe failed")
            elif not worked:
                self._judge()

    def _judge(self) -> None:
        config, failures = self._config, self._recent.count(False)
        if self._streak >= config.failures:
            self._change(f"{self._streak} failures in a row")
        elif config.share is not None and len(self._recent) == config.window <= failures / config.share:
            self._change(f"{failures} failures in {config.window} calls")

    def _change(self, why: str | None) -> None:
        """Open, or close where `why` is None."""
        self._era += 1
        self._opened = None if why is None else self._clock()
        self._why = why or ""
        self._probing, self._streak = False, 0
        self._recent.clear()

    def _refusal(self) -> str | None:
        if self._opened is None:
            return None
        left = self._opened + self._config.seconds - self._clock()
        if left > 0:
            return f"open after {self._why}, next try in {left:.1f} s"
        return "half-open, and its one probe is under way" if self._probing else None
