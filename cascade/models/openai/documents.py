"""The JSON values in the body of a response, whether it is one JSON text or server-sent events.

The format is read off the body, not off the request or the content type: servers stream unless told not to,
answer a streamed request at once, or name the wrong type.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic_core import from_json

_BOM: Final = b"\xef\xbb\xbf"
_FIELD = re.compile(rb"data:|event:|error:|id:|retry:|:")  # how server-sent events begin
_LONGEST_FIELD = 6
_QUOTED = 300  # characters of a body that is no JSON


class NotJsonError(ValueError):
    """A body, or an event of one, is not JSON. `excerpt` is how it begins."""

    def __init__(self, why: str, data: bytes) -> None:
        self.excerpt = data[: 4 * _QUOTED].decode("utf-8", "replace").strip()[:_QUOTED]
        super().__init__(f"Invalid JSON: {why}")


class Documents:
    """Takes a body chunk by chunk, and returns its JSON values as soon as they are complete.

    Attributes:
        done: the event `[DONE]` has come; nothing after it counts.
    """

    def __init__(self) -> None:
        self.done = False
        self._events: bool | None = None  # None until the first bytes tell
        self._chunks: list[bytes] = []
        self._data: list[bytes] = []
        self._is_error = False

    def feed(self, chunk: bytes) -> list[Any]:
        """Return the values that `chunk` completes.

        Raises:
            NotJsonError: an event is not JSON.
        """
        self._chunks.append(chunk)
        if self._events is None:
            head = b"".join(self._chunks).removeprefix(_BOM).lstrip()
            self._chunks = [head]
            if len(head) < _LONGEST_FIELD:
                return []
            self._events = bool(_FIELD.match(head))
            chunk = head
        if not self._events or (b"\n" not in chunk and b"\r" not in chunk):
            return []
        lines = b"".join(self._chunks).splitlines(keepends=True)
        # A carriage return at the end may be half of a line end, and a line without an end is unfinished.
        self._chunks = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        return [value for line in lines for value in self._line(line.rstrip(b"\r\n"))]

    def end(self) -> list[Any]:
        """Return what is left at the end of the body.

        Raises:
            NotJsonError: it is not JSON.
        """
        rest = b"".join(self._chunks)
        self._chunks = []
        if self._events or (self._events is None and _FIELD.match(rest)):
            return [value for line in (rest.rstrip(b"\r\n"), b"") for value in self._line(line)]
        rest = rest.strip()
        return [_parsed(rest)] if rest else []

    def _line(self, line: bytes) -> list[Any]:
        if self.done:
            return []
        if not line:
            return self._event()
        name, _, value = line.partition(b":")
        if line.startswith(b"{"):  # a server that gives up writes its error without the frame of an event
            name, value = b"data", line
        value = value.removeprefix(b" ")
        if name == b"data" and value.strip() == b"[DONE]":
            values = self._event()
            self.done = True
            return values
        if name in (b"data", b"error"):  # llama-server writes `error: {…}`
            self._data.append(value)
            self._is_error = self._is_error or name == b"error"
        elif name == b"event":
            self._is_error = value.strip() == b"error"
        return []

    def _event(self) -> list[Any]:
        """Return the values of the event that ends here: one, unless the blank lines between events miss."""
        lines, self._data = self._data, []
        is_error, self._is_error = self._is_error, False
        text = b"\n".join(lines).strip()
        if not text:
            return []
        try:
            values = [_parsed(text)]
        except NotJsonError:
            if is_error:
                return [{"error": text.decode("utf-8", "replace")}]
            if len(lines) == 1:
                raise
            values = [_parsed(line) for line in lines if line.strip()]
        return [_as_error(value) for value in values] if is_error else values


def _as_error(value: Any) -> Any:
    return value if isinstance(value, dict) and value.get("error") else {"error": value}


def _parsed(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError as error:
        raise NotJsonError(str(error), data) from None
