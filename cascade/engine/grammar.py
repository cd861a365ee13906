"""A grammar at work: which tokens may come next. llama.cpp follows it; its aborts are kept away.

llama.cpp ends the process when it is told to accept a token that the grammar does not allow, so `accept`
is only reached through `allows` or `mask`. Two more things are refused than llama.cpp refuses: tokens
without text (control tokens, whose spelling the grammar would take for text), and bytes that are not
UTF-8 (it decodes them loosely and can then fail on what it allowed).
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

# A grammar can be read in several ways at once; llama.cpp follows them all. Normally a token takes
# microseconds; where the readings double with every token, time and memory would run out.
MAX_SECONDS = 0.5
CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Grammar:
    """The state of one text in a grammar. Used on the decode thread only."""

    def __init__(self, weights: Weights, text: str) -> None:
        """Start the grammar `text` (GBNF) at its rule `root`.

        Raises:
            ModelError: it is not a grammar that can be followed safely.
        """
        self._handle: Any = None
        try:
            check_grammar(text)  # llama.cpp hangs or dies on some
        except ConfigError as error:
            raise ModelError(str(error)) from error
        self._weights = weights
        self._begun = b""  # the first bytes of a character
        self._one = np.zeros(1, CANDIDATE)
        forget_errors()
        self._handle = api.llama_sampler_init_grammar(weights.vocab, text.encode(), b"root")
        if not self._handle:
            raise ModelError(f"llama.cpp refuses the grammar: {first_error()}")

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        if not self.readable(token):
            return False
        self._one["id"], self._one["logit"] = token, 0.0
        self.mask(self._one)
        return bool(self._one["logit"][0] == 0.0)

    def mask(self, candidates: npt.NDArray[np.void]) -> None:
        """Set the logit of every candidate that the grammar does not allow to -inf.

        Args:
            candidates: records of `CANDIDATE`. What is left may still not be `readable`.
        """
        array = token_array(candidates)
        api.llama_sampler_apply(self._handle, ctypes.byref(array))

    def readable(self, token: int) -> bool:
        """Whether `token` ends the text, or continues it with valid UTF-8."""
        if self._weights.ends(token):
            return True
        piece = self._weights.piece(token)
        return bool(piece) and b"\0" not in piece and _unfinished(self._begun + piece) is not None

    def accept(self, token: int) -> None:
        """Go on with `token`, which must be allowed and readable.

        Raises:
            ModelError: the grammar can be read in too many ways to go on.
        """
        if self._weights.ends(token):
            return
        self._begun = _unfinished(self._begun + self._weights.piece(token)) or b""
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


def _unfinished(data: bytes) -> bytes | None:
    """Return the beginning of a character at the end of `data`; None if `data` is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:  # the incremental decoder notices ED A0 (a surrogate) too late
        return data[error.start :] if error.reason == "unexpected end of data" else None
    return b""


def token_array(candidates: npt.NDArray[np.void]) -> Any:
    """Return llama.cpp's view of contiguous records of `CANDIDATE`; they must outlive it."""
    data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(api.llama_token_data))
    return api.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
