"""Embeddings: a unit vector for each text, from a local model. Used on the decode thread only."""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.engine.binding import api, first_error, forget_errors
from cascade.errors import ModelError

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
MAX_TEXTS = 64  # in one decode
# Target size of a decode; a longer text gets its own. Attention is quadratic in all tokens of a decode:
# with all-MiniLM-L6-v2, a text takes 2.3 times as long among 512 tokens as among 96 or alone.
BATCH_TOKENS = 96
_CONTEXT_TOKENS = 512  # that a context has room for at least
_MAX_LOGITS = 2**29  # llama.cpp reserves logits for all tokens of a batch: at most 2 GiB of address space
_NONE, _MEAN, _CLS, _LAST = 0, 1, 2, 3
_POOLING = {_MEAN: "mean", _CLS: "cls", _LAST: "last"}


class Embedder:
    """A context that gives one vector for each sequence.

    Attributes:
        limit: maximum tokens of a text.
        size: dimension of a vector.
        pooling: how the tokens' vectors become one: `mean`, `cls` (the first) or `last`.
    """

    def __init__(self, model: Any, n_vocab: int, pooling: int, limit: int, n_threads: int) -> None:
        """Make the context.

        Raises:
            ModelError: the file is a reranker, or llama.cpp cannot make the context.
        """
        if pooling not in _POOLING:
            raise ModelError(f"its pooling type is {pooling}, which gives no embeddings; known: 1, 2, 3")
        self.limit = min(limit, _MAX_LOGITS // n_vocab)
        self.pooling = _POOLING[pooling]
        self.size = int(api.llama_model_n_embd_out(model))
        needed = max(self.limit, min(_CONTEXT_TOKENS, _MAX_LOGITS // n_vocab))
        # Taking means, llama.cpp aborts on a size that its sequences do not divide.
        self._batch_tokens = -(-needed // MAX_TEXTS) * MAX_TEXTS
        params = api.llama_context_default_params()
        # Pooling only sees the tokens of one micro-batch, so a text must fit into one.
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = self._batch_tokens
        params.n_seq_max = MAX_TEXTS
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = 0
        params.embeddings = True
        params.pooling_type = pooling
        params.no_perf = True
        forget_errors()
        self._handle = api.llama_init_from_model(model, params)
        if not self._handle:
            raise ModelError(
                f"llama.cpp cannot make an embedding context of {self._batch_tokens} tokens: "
                f"{first_error()}; lower n_ctx"
            )

    @property
    def cells(self) -> int:
        """Tokens that the context has room for."""
        return self._batch_tokens

    def embed(self, texts: Sequence[IntArray]) -> Generator[None, None, FloatArray]:
        """Return the unit vectors of tokenized texts, shape (texts, size); yields between decodes.

        Raises:
            ModelError: a text is empty or too long, or the model computes NaN or a vector of zeros.
        """
        self.check(*texts)
        vectors = np.empty((len(texts), self.size), np.float32)
        start = 0
        while start < len(texts):
            if start:
                yield
            end, size = start, 0
            while end < len(texts) and end - start < MAX_TEXTS:
                size += len(texts[end])
                if end > start and size > min(BATCH_TOKENS, self._batch_tokens):
                    break
                end += 1
            vectors[start:end] = self.vectors(texts[start:end])
            start = end
        return vectors

    def check(self, *texts: IntArray) -> None:
        """Reject a tokenized text that is empty or too long.

        Raises:
            ModelError: one is.
        """
        for index, tokens in enumerate(texts):
            if not 0 < len(tokens) <= self.limit:
                fix = "shorten it" if len(tokens) else "give a text"
                raise ModelError(f"text {index} has {len(tokens)} tokens; expected 1 to {self.limit}; {fix}")

    def vectors(self, texts: Sequence[IntArray]) -> list[FloatArray]:
        """Return the unit vectors of tokenized texts that fit into one decode, each of shape (size,).

        Raises:
            ModelError: llama.cpp cannot decode them, or computes NaN or a vector of zeros.
        """
        self._decode(texts)
        return [self._vector(sequence) for sequence in range(len(texts))]

    def close(self) -> None:
        """Free the context."""
        if self._handle:
            api.llama_free(self._handle)
            self._handle = None

    def _decode(self, texts: Sequence[IntArray]) -> None:
        token = np.concatenate(texts)
        count = len(token)
        position = np.concatenate([np.arange(len(text), dtype=np.int32) for text in texts])
        sequence = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text) for text in texts])
        single, output = np.ones(count, np.int32), np.ones(count, np.int8)
        rows = sequence.ctypes.data + np.arange(count, dtype=np.uintp) * sequence.itemsize
        rows = np.append(rows, 0).astype(np.uintp)
        pointer, batch = ctypes.POINTER, api.llama_batch()
        batch.n_tokens = count
        batch.token = ctypes.cast(token.ctypes.data, pointer(api.llama_token))
        batch.pos = ctypes.cast(position.ctypes.data, pointer(api.llama_pos))
        batch.n_seq_id = ctypes.cast(single.ctypes.data, pointer(ctypes.c_int32))
        batch.seq_id = ctypes.cast(rows.ctypes.data, pointer(pointer(api.llama_seq_id)))
        batch.logits = ctypes.cast(output.ctypes.data, pointer(ctypes.c_int8))
        api.llama_memory_clear(api.llama_get_memory(self._handle), False)
        forget_errors()
        code = api.llama_decode(self._handle, batch)
        if code:
            raise ModelError(f"embedding failed with code {code}: {first_error()}")

    def _vector(self, sequence: int) -> FloatArray:
        address = api.llama_get_embeddings_seq(self._handle, sequence)
        if not address:
            raise ModelError("llama.cpp gave no embedding; use a model made for embeddings")
        vector = np.ctypeslib.as_array(address, (self.size,)).astype(np.float64)
        length = float(np.linalg.norm(vector))
        if not 0.0 < length < np.inf:
            raise ModelError(
                f"its embedding has length {length}; the weights are broken, download or export it again"
            )
        unit: FloatArray = (vector / length).astype(np.float32)
        return unit


def pooling_type(metadata: str | None, causal: bool) -> int:
    """Return a file's pooling type; by default the last token for a causal model, the mean for others."""
    given = int(metadata) if metadata is not None and metadata.isdigit() else _NONE
    return given or (_LAST if causal else _MEAN)
