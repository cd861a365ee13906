"""A log that says how long things took."""

from __future__ import annotations

import sys
import time


class Log:
    """Lines with the seconds since the start, on standard error."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = time.monotonic()

    def say(self, text: str) -> None:
        """Write one line."""
        print(f"[{self.name} {time.monotonic() - self.begun:6.0f}s] {text}", file=sys.stderr, flush=True)
