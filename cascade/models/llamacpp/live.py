"""An answer while it is written: its thinking is neither shown nor judged."""

from __future__ import annotations

from collections.abc import Callable

from cascade.formats.thinking import Split, Splitter, opens_thinking, split
from cascade.models.base import StopEarly
from cascade.policy.early_exit import Tokens


class LiveAnswer:
    """Follows an answer on the decode thread."""

    def __init__(
        self, on_text: Callable[[str], object] | None, stop_early: StopEarly | None, *, bound: bool
    ) -> None:
        """Follow an answer.

        Args:
            on_text: receives the answer piece by piece.
            stop_early: says from the tokens so far whether to stop.
            bound: whether a grammar binds the answer, so that it does not begin within thinking.
        """
        self._on_text, self._stop_early, self._bound = on_text, stop_early, bound
        self._opened = False
        self._splitter = Splitter()

    def begin(self, prompt_end: str) -> None:
        """Begin after a prompt that ends with `prompt_end`."""
        self._opened = not self._bound and opens_thinking(prompt_end)
        self._splitter = Splitter(opened=self._opened)

    def add(self, piece: str) -> None:
        """Take the next piece of the text."""
        self._show(self._splitter.push(piece))

    def stops(self, tokens: Tokens) -> bool:
        """Return whether to stop; never once there was thinking, whose tokens the statistics hold too."""
        return self._stop_early is not None and self._splitter.plain and self._stop_early(tokens)

    def end(self, text: str, *, cut: bool) -> Split:
        """Show the rest, and return the whole `text` taken apart; `cut` says that it was cut off."""
        self._show(self._splitter.close(cut=cut))
        return split(text, opened=self._opened, cut=cut)

    def _show(self, text: str) -> None:
        if text and self._on_text is not None:
            self._on_text(text)
