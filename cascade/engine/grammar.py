"""The state of a grammar: which tokens may come next, as llama.cpp follows it, without its aborts.

llama.cpp ends the process if it accepts a token that the grammar does not allow, so a token must pass
`allows` or `mask` before `accept`. Two kinds of tokens are refused although llama.cpp allows them: control
tokens, whose spelling it would take for text, and bytes that are not UTF-8, which it decodes loosely and
may fail on later.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.engine.binding import api, first_error, forget_errors
from cascade.engine.weights import Weights
from cascade.errors import ConfigError, ModelError
from cascade.formats.gbnf import check_grammar

# llama.cpp follows all readings of an ambiguous grammar at once. A token normally takes microseconds; if the
# readings double with every token, time and memory would run out.
MAX_SECONDS = 0.5
CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Grammar:
    """The state of one text in a grammar. Used on the decode thread only."""

    def __init__(self, weights: Weights, text: str) -> None:
        """Start the grammar `text` (GBNF) at its rule `root`.

        Raises:
            ModelError: the grammar cannot be followed safely.
        """
        self._handle: Any = None
        try:
            check_grammar(text)  # llama.cpp hangs on some grammars and aborts on others
        except ConfigError as error:
            raise ModelError(str(error)) from error
        self._weights = weights
        self._partial = b""  # the first bytes of an incomplete character
        self._candidate = np.zeros(1, CANDIDATE)
        forget_errors()
        self._handle = api.llama_sampler_init_grammar(weights.vocab, text.encode(), b"root")
        if not self._handle:
            raise ModelError(f"llama.cpp refuses the grammar: {first_error()}")

    def allows(self, token: int) -> bool:
        """Return whether `token` may come next."""
        if not self.readable(token):
            return False
        self._candidate["id"], self._candidate["logit"] = token, 0.0
        self.mask(self._candidate)
        return bool(self._candidate["logit"][0] == 0.0)

    def mask(self, candidates: npt.NDArray[np.void]) -> None:
        """Set the logit of each candidate that the grammar does not allow to -inf.

        Args:
            candidates: records of `CANDIDATE`. Those that remain must still pass `readable`.
        """
        array = token_array(candidates)
        api.llama_sampler_apply(self._handle, ctypes.byref(array))

    def readable(self, token: int) -> bool:
        """Return whether `token` ends the text or continues it with valid UTF-8."""
        if self._weights.is_end(token):
            return True
        piece = self._weights.piece(token)
        return bool(piece) and b"\0" not in piece and _incomplete_character(self._partial + piece) is not None

    def accept(self, token: int) -> None:
        """Advance the grammar by `token`, which must be allowed and readable.

        Raises:
            ModelError: the grammar has too many readings to continue.
        """
        if self._weights.is_end(token):
            return
        self._partial = _incomplete_character(self._partial + self._weights.piece(token)) or b""
        before = time.thread_time()
        api.llama_sampler_accept(self._handle, token)
        if time.thread_time() - before > MAX_SECONDS:
            raise ModelError(
                "the grammar can be read in too many ways at once; make its alternatives differ in their "
                "first characters"
            )

    def close(self) -> None:
        """Free the state."""
        if self._handle:
            api.llama_sampler_free(self._handle)
            self._handle = None


def _incomplete_character(data: bytes) -> bytes | None:
    """Return the incomplete character at the end of `data`; None if `data` is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:  # the incremental decoder detects ED A0 (a surrogate) too late
        return data[error.start :] if error.reason == "unexpected end of data" else None
    return b""


def token_array(candidates: npt.NDArray[np.void]) -> Any:
    """Return llama.cpp's view of contiguous records of `CANDIDATE`, which must outlive it."""
    data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(api.llama_token_data))
    return api.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
