"""Text that a stream sends in pieces, put together once.

By the protocol each `delta` adds to the text. Some servers repeat: each piece holds everything so far
(cumulative), or the last one, or a `message` beside the deltas, holds the whole again. What the pieces say is
read off them; where they can be read in two ways, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable

_GROWTHS = 2  # so many pieces that repeat all before them, and add to it, are no coincidence
_REPEATED = 4  # characters from which two equal pieces are suspicious: "ha" + "ha" is not


class AmbiguousError(ValueError):
    """The pieces of a stream can be read in two ways, or contradict each other."""


class Pieces:
    """The pieces of one text, from one member of a stream.

    Attributes:
        count: how many pieces that are not empty.
    """

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[str] = []
        self._length = 0
        self._last = ""
        self._nested = True  # each piece begins with the one before it
        self._growths = 0
        self._echo = False  # the last piece repeats all before it
        self._shown = 0  # characters handed out
        self._held: list[str] = []

    def add(self, piece: str) -> str:
        """Add `piece`; return the text that is new and certain."""
        if not piece:
            return ""
        if self.count:
            self._nested = self._nested and piece.startswith(self._last)
            self._growths += self._nested and len(piece) > len(self._last)
        self._echo = self.count > 1 and len(piece) == self._length and piece == "".join(self._parts)
        self._echo = self._echo and len(piece) >= _REPEATED
        self._parts.append(piece)
        self._length += len(piece)
        self._last = piece
        self.count += 1
        return self._certain()

    def _certain(self) -> str:
        self._held.append(self._last)
        if self._growths >= _GROWTHS:
            if not self._nested:
                return ""
            new = self._last[self._shown :]
        elif self.count > 1 and (self._nested or self._echo):
            return ""
        else:
            new = "".join(self._held)
        self._held = []
        self._shown += len(new)
        return new

    def readings(self) -> tuple[str, ...]:
        """Return all texts that the pieces can mean, the most probable first; no piece means ''."""
        whole = "".join(self._parts)
        if self.count < 2:
            return (whole,)
        if self._growths >= _GROWTHS:
            return (self._last,) if self._nested else ()
        if self._echo:
            return self._last, whole
        return (whole, self._last) if self._nested else (whole,)

    def only(self, tokens: int | None) -> str:
        """Return the text, from the pieces and the number of generated tokens.

        Raises:
            AmbiguousError: it is not certain.
        """
        readings = self.readings()
        if not readings:
            raise AmbiguousError("it repeats its text, and then contradicts it")
        if len(readings) == 1 or self._echo:
            return readings[0]
        if tokens is not None and tokens < self.count:
            return readings[1]  # each piece of a text has a token at least
        if self._growths == 0 and len(self._last) < _REPEATED:
            return readings[0]
        raise AmbiguousError(f"it can be read as {readings[0][:80]!r} or as {readings[1][:80]!r}")


class Once:
    """A text that `delta`s, `message`s or both of them say.

    Attributes:
        deltas: the pieces of `delta`.
        messages: the pieces of `message`.
    """

    def __init__(self) -> None:
        self.deltas, self.messages = Pieces(), Pieces()
        self._shown: list[str] = []

    @property
    def shown(self) -> str:
        """The text that `add` returned."""
        return "".join(self._shown)

    def add(self, delta: str, message: str) -> str:
        """Add what one chunk says; return the text that is new and certain."""
        alone = not self.deltas.count and not delta
        from_message = self.messages.add(message)
        new = self.deltas.add(delta) or (from_message if alone else "")
        if new:
            self._shown.append(new)
        return new

    def text(self, tokens: int | None = None, fits: Callable[[str], bool] | None = None) -> str:
        """Return the text.

        Args:
            tokens: how many tokens were generated, if that is known.
            fits: says whether other evidence agrees with a reading.

        Raises:
            AmbiguousError: it is not certain.
        """
        said = [pieces for pieces in (self.deltas, self.messages) if pieces.count]
        if not said:
            return ""
        text = self._read(said, tokens, fits)
        if not text.startswith(shown := self.shown):
            raise AmbiguousError(f"it said {shown[:80]!r} and then {text[:80]!r}")
        return text

    def _read(self, said: list[Pieces], tokens: int | None, fits: Callable[[str], bool] | None) -> str:
        others = [{each.strip() for each in one.readings()} for one in said[1:]]
        readings = [each for each in said[0].readings() if all(each.strip() in other for other in others)]
        if not readings and len(said) > 1:
            raise AmbiguousError("its message is not what its deltas say")
        if len(readings) > 1 and fits is not None:
            fitting = [each for each in readings if fits(each)]
            readings = fitting if len(fitting) == 1 else readings
        return readings[0] if len(readings) == 1 else said[0].only(tokens)
