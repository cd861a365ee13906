"""The tool calls of one side of an answer (its deltas, or its messages), put together from pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from cascade.models.openai.pieces import AmbiguousError, Pieces

_MOST = 4096  # calls in one answer


class Piece(NamedTuple):
    """A tool call, or a piece of one; `place` is its index, and what it does not say is None or ''."""

    place: int | None
    id: str
    name: str
    arguments: str


class Calls:
    """Tool calls in the order of their places.

    A piece names its place by `index`; without one it continues the last call, unless it begins another. Some
    servers give all calls the same place, one after the other; a new id then begins another call.
    """

    def __init__(self) -> None:
        self._places: dict[int, list[_Call]] = {}
        self._last: _Call | None = None
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, pieces: Sequence[Piece]) -> None:
        """Add the pieces of one chunk.

        Raises:
            ValueError: there are too many calls.
        """
        for position, piece in enumerate(pieces):
            if piece.place is None:
                call = self._last if position == 0 else None
                place = max(self._places, default=-1) + 1
            else:
                place = piece.place
                call = next(reversed(self._places.get(place, [])), None)
            if call is None or call.is_followed_by(piece):
                call = _Call()
                self._places.setdefault(place, []).append(call)
                self._count += 1
            if self._count > _MOST:
                raise ValueError(f"more than {_MOST} tool calls")
            call.add(piece)
            self._last = call

    def read(self) -> list[tuple[str, str, str]]:
        """Return id, name and arguments of each call; an id that no piece gave is ''.

        Raises:
            AmbiguousError: the arguments of one can be read in two ways, or have no name.
        """
        calls = [call for place in sorted(self._places) for call in self._places[place]]
        return [(call.id, call.name, call.arguments()) for call in calls]


class _Call:
    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self._arguments = Pieces()

    def is_followed_by(self, piece: Piece) -> bool:
        """Return whether `piece` begins another call than this one."""
        if not piece.name or not self.name:
            return False
        if piece.id and self.id:
            return piece.id != self.id
        return bool(piece.arguments or piece.name != self.name) and _is_object(self._best())

    def add(self, piece: Piece) -> None:
        self.id = self.id or piece.id
        # A name comes whole, and some servers repeat it in every piece; few send it in pieces.
        repeated = bool(piece.name) and piece.name.startswith(self.name)
        self.name = piece.name if repeated else self.name + piece.name
        self._arguments.add(piece.arguments)

    def arguments(self) -> str:
        if self._arguments.count and not self.name:
            raise AmbiguousError("arguments without the name of a tool")
        if self.name and not self._arguments.count:
            return "{}"  # a tool without parameters; servers write null, "" or {}
        readings = [each for each in self._arguments.readings() if _is_object(each)]
        return readings[0] if len(readings) == 1 else self._arguments.only(None)

    def _best(self) -> str:
        try:
            return self.arguments()
        except AmbiguousError:
            return ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
