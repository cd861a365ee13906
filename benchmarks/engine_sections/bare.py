"""One sequence on the bare binding, for the baselines of `reference`. Shares no code with the engine."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as api

Rows = npt.NDArray[np.float32]
_N_BATCH = 2048
_ROWS = 256  # logits rows of one decode


@api.llama_log_callback  # type: ignore[untyped-decorator]  # the binding has no types here
def _silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """Drop llama.cpp's log."""


class Bare:
    """A model with one context of one sequence, at llama.cpp's own defaults."""

    def __init__(self, path: str, threads: int, n_ctx: int) -> None:
        """Load `path`.

        Raises:
            RuntimeError: llama.cpp cannot.
        """
        api.llama_log_set(_silent, ctypes.c_void_p(0))
        api.llama_backend_init()
        self._model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = api.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = _N_BATCH
        params.n_outputs_max = _ROWS
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context of {n_ctx} tokens")
        self._memory = api.llama_get_memory(self._context)
        self._n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        self._batch = api.llama_batch_init(_N_BATCH, 0, 1)

    def clear(self) -> None:
        """Forget all tokens."""
        api.llama_memory_clear(self._memory, False)

    def cut(self, start: int) -> None:
        """Forget the tokens from position `start` on."""
        api.llama_memory_seq_rm(self._memory, 0, start, -1)

    def feed(self, tokens: list[int], start: int, rows: int) -> Rows:
        """Decode `tokens` from position `start` in one call; return the logits of the last `rows`, a view.

        Raises:
            RuntimeError: the decode failed.
        """
        batch: Any = self._batch
        for place, token in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = start + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = place >= len(tokens) - rows
        batch.n_tokens = len(tokens)
        code = api.llama_decode(self._context, batch)
        if code:
            raise RuntimeError(f"decode failed with code {code}")
        pointer = api.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, shape=(rows, self._n_vocab))

    @staticmethod
    def logprob(row: Rows, token: int) -> float:
        """Return the log-probability of `token` in one logits row."""
        best = float(row.max())
        return float(row[token]) - best - float(np.log(np.exp(row - best).sum(dtype=np.float64)))
