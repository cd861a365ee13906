"""What llama.cpp's decode returns when it fails."""

from __future__ import annotations

from cascade.engine.binding import first_error
from cascade.errors import ModelError

ABORTED = 2  # by the flag of `abort`
_REASONS = {
    1: "the context is full",
    ABORTED: "the decode was aborted",
    -1: "llama.cpp refused the batch",
    -2: "out of memory",
    -3: "the computation failed",
}


class DecodeError(ModelError):
    """llama.cpp returned `code`."""

    def __init__(self, code: int) -> None:
        reason = _REASONS.get(code, "unknown reason")
        super().__init__(f"decode failed with code {code}: {reason} ({first_error()})")
        self.code = code
