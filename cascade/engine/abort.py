"""Ending a decode from another thread.

ggml asks an abort callback before every operation, several hundred times a decode. A Python function there
would need the interpreter's lock each time, so the callback is the C library's `strlen` over two bytes: the
length of "" is false, that of a one-letter string is true.
"""

from __future__ import annotations

import ctypes
from typing import Any

from cascade.engine.binding import api

_strlen = ctypes.cast(ctypes.CDLL(None).strlen, api.ggml_abort_callback)


class AbortFlag:
    """The flag that one context's decodes look at. Setting it may happen in any thread."""

    def __init__(self, handle: Any) -> None:
        self._bytes = (ctypes.c_ubyte * 2)()  # lives as long as the context that points to it
        api.llama_set_abort_callback(handle, _strlen, ctypes.cast(self._bytes, ctypes.c_void_p))

    def set(self) -> None:
        """End the decode in flight at its next operation."""
        self._bytes[0] = 1

    def clear(self) -> None:
        """Let the next decode run."""
        self._bytes[0] = 0
