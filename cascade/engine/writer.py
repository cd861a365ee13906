"""Putting generated tokens together to a text: whole characters, nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from cascade.engine.stats import TokenStats
from cascade.engine.stops import StopStrings
from cascade.errors import ModelError
from cascade.records import Token


class Writer:
    """A text that grows by tokens; `emit` gets what may be shown of it."""

    def __init__(self, stops: Sequence[str], emit: Callable[[str], object] | None) -> None:
        self._tokens: list[tuple[str, TokenStats]] = []
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = StopStrings(stops) if stops else None
        self._shown: list[str] = []
        self._stopped = False

    def add(self, piece: bytes, stats: TokenStats) -> bool:
        """Append a token; return whether it completes a stop string."""
        text = self._decoder.decode(piece)
        self._tokens.append((text, stats))
        if self._stops is None:
            self._show(text)
            return False
        shown, self._stopped = self._stops.push(text)
        self._show(shown)
        return self._stopped

    def close(self) -> tuple[str, tuple[Token, ...]]:
        """Return the text and its tokens. A character that was cut off becomes a replacement character.

        Raises:
            ModelError: there is no text.
        """
        if self._tokens and not self._stopped:
            rest = self._decoder.decode(b"", final=True)
            last, stats = self._tokens[-1]
            self._tokens[-1] = last + rest, stats
            if self._stops is not None:
                # A stop string can only complete here if it holds a replacement character.
                rest = self._stops.push(rest)[0] + self._stops.rest()
            self._show(rest)
        text = "".join(self._shown)
        if not text:
            raise ModelError(
                "it answered nothing: its first token ends the text, or a stop string begins it; change "
                "'prompt' or 'stop', or use another model"
            )
        return text, self._records(len(text))

    def _show(self, text: str) -> None:
        if text:
            self._shown.append(text)
            if self._emit:
                self._emit(text)

    def _records(self, length: int) -> tuple[Token, ...]:
        """The tokens, cut off where the text ends; what a stop string is made of stays as evidence."""
        found = []
        for text, (logprob, margin, entropy) in self._tokens:
            kept = text[: max(0, length)]
            found.append(Token(text=kept, logprob=logprob, margin=margin, entropy=entropy))
            length -= len(text)
        return tuple(found)
