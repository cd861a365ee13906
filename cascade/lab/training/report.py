"""A log with elapsed times."""

from __future__ import annotations

import sys
import time


class Log:
    """Prints lines with the seconds since the start to standard error."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        print(f"[{self.name} {time.monotonic() - self._started:6.0f}s] {text}", file=sys.stderr, flush=True)
