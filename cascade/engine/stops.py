"""Stop strings: where a text ends, found while it is still being written."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches a text that arrives in pieces; what could begin a stop string is held back.

    Where the text ends does not depend on how it is cut into pieces: it ends before the stop string that
    is complete first, the longest of those.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Return (text that may be shown now, whether a stop string is complete) after `piece`."""
        text = self._held + piece
        ends = [(place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        cut = len(text) - held
        self._held = text[cut:]
        return text[:cut], False

    def rest(self) -> str:
        """Return what is held back: the text is over, so it begins no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
