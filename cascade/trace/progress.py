"""Saying how far something long has come, so that nobody takes it for a program that hangs."""

from __future__ import annotations

import logging
import time

_log = logging.getLogger("cascade.trace")
_EVERY = 5.0  # seconds between two lines


def say(message: str, *values: object) -> None:
    """Log a line that is shown unless somebody turned logging off: what follows may take minutes."""
    _log.warning(message, *values)


class Progress:
    """Says every few seconds how much of `total` is done; nothing if it is quick."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._said = time.monotonic()

    def reached(self, done: int) -> None:
        """Take note that `done` of `total` are done."""
        if time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            say("%s: %s of %s", self._what, f"{done:,}", f"{self._total:,}")
