"""One llama.cpp context: batches of tokens in, checked logits rows out. Used on the decode thread only.

Every condition under which llama.cpp aborts the process (a batch over `n_batch`, more outputs than
`n_outputs_max`, a sequence id out of range) is checked here before the call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.binding import api, first_error, forget_errors, logits_address
from cascade.errors import ModelError

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

MAX_BATCH = 512
MAX_BRANCHES = 64
_OUTPUT_FLOATS = 2**24  # 64 MiB of logits in one decode
_REASONS = {
    1: "the context is full",
    2: "the decode was aborted",
    -1: "llama.cpp refused the batch",
    -2: "out of memory",
    -3: "the computation failed",
}


class Shape(NamedTuple):
    """A context's size: its tokens, the threads of a decode, the branches that share a prompt (0: none)."""

    n_ctx: int
    n_threads: int
    branches: int = 0


class Context:
    """A KV cache with its batch buffers. Sequence 0 holds the prompt; branches are 1 … `shape.branches`.

    Attributes:
        shape: its size.
        n_batch: most tokens in one decode.
        max_outputs: most logits rows in one decode.
    """

    def __init__(self, model: Any, n_vocab: int, causal: bool, shape: Shape) -> None:
        """Make a context of `model`.

        Raises:
            ModelError: llama.cpp cannot make it, most often for lack of memory.
        """
        if not 0 <= shape.branches <= MAX_BRANCHES:
            raise ModelError(f"{shape.branches} branches; a context has at most {MAX_BRANCHES}")
        self.shape = shape
        self._n_vocab = n_vocab
        # A non-causal model must see the whole prompt in one micro-batch, else llama.cpp aborts.
        self.n_batch = min(shape.n_ctx, MAX_BATCH) if causal else shape.n_ctx
        self.max_outputs = 1
        if shape.branches:
            self.max_outputs = max(1, min(self.n_batch, _OUTPUT_FLOATS // n_vocab))
        forget_errors()
        self._handle = api.llama_init_from_model(model, self._params())
        if not self._handle:
            raise ModelError(
                f"llama.cpp cannot make a context of {shape.n_ctx} tokens: {first_error()}; lower n_ctx"
            )
        self._memory = api.llama_get_memory(self._handle)
        self._make_batch()

    def _params(self) -> Any:
        params = api.llama_context_default_params()
        params.n_ctx = self.shape.n_ctx
        params.n_batch = params.n_ubatch = self.n_batch
        params.n_outputs_max = self.max_outputs
        params.n_seq_max = 1 + self.shape.branches
        params.kv_unified = self.shape.branches > 0  # branches share the prompt's cells
        params.n_threads = params.n_threads_batch = self.shape.n_threads
        params.flash_attn_type = 0  # log-probabilities depend least on the batch without it
        params.no_perf = True
        return params

    def _make_batch(self) -> None:
        """Point llama.cpp's batch at numpy arrays, so that filling it needs no ctypes call per token."""
        size = self.n_batch
        self._token = np.zeros(size, np.int32)
        self._pos = np.zeros(size, np.int32)
        self._n_seq = np.ones(size, np.int32)
        self._seq = np.zeros((size, 1 + self.shape.branches), np.int32)
        self._output = np.zeros(size, np.int8)
        rows = self._seq.ctypes.data + np.arange(size, dtype=np.uintp) * self._seq.strides[0]
        self._seq_rows = np.append(rows, 0).astype(np.uintp)
        pointer = ctypes.POINTER
        self._batch = api.llama_batch()
        self._batch.token = ctypes.cast(self._token.ctypes.data, pointer(api.llama_token))
        self._batch.pos = ctypes.cast(self._pos.ctypes.data, pointer(api.llama_pos))
        self._batch.n_seq_id = ctypes.cast(self._n_seq.ctypes.data, pointer(ctypes.c_int32))
        self._batch.seq_id = ctypes.cast(self._seq_rows.ctypes.data, pointer(pointer(api.llama_seq_id)))
        self._batch.logits = ctypes.cast(self._output.ctypes.data, pointer(ctypes.c_int8))

    @property
    def handle(self) -> Any:
        """llama.cpp's pointer, for its samplers."""
        return self._handle

    def clear(self) -> None:
        """Forget all tokens."""
        api.llama_memory_clear(self._memory, False)

    def feed(self, tokens: IntArray, start: int, *, output: bool) -> None:
        """Append `tokens` to sequence 0 from position `start`; `output` keeps the last one's logits row."""
        count = len(tokens)
        self._check(count, int(output))
        self._token[:count] = tokens
        self._pos[:count] = np.arange(start, start + count)
        self._n_seq[:count] = 1
        self._seq[:count, 0] = 0
        self._output[:count] = 0
        self._output[count - 1] = output
        self._decode(count)

    def feed_branches(
        self, tokens: Sequence[int], positions: Sequence[int], branches: Sequence[Sequence[int]]
    ) -> None:
        """Append one token to each of its `branches` (1-based) and keep the logits row of every token."""
        count = len(tokens)
        self._check(count, count)
        self._token[:count] = tokens
        self._pos[:count] = positions
        self._output[:count] = 1
        for row, own in enumerate(branches):
            if not own or min(own) < 1 or max(own) > self.shape.branches:
                raise ModelError(f"branches {list(own)} are outside 1 … {self.shape.branches}")
            self._n_seq[row] = len(own)
            self._seq[row, : len(own)] = own
        self._decode(count)

    def rows(self, count: int = 1) -> FloatArray:
        """Return the logits rows of the last decode, shape (count, vocabulary).

        They are a view that the next decode overwrites.

        Raises:
            ModelError: a value is NaN or infinite.
        """
        address = logits_address(self._handle)
        if not address or not 0 < count <= self.max_outputs:
            raise ModelError(f"llama.cpp has no {count} logits rows; at most {self.max_outputs}")
        buffer = (ctypes.c_float * (count * self._n_vocab)).from_address(address)
        rows: FloatArray = np.ctypeslib.as_array(buffer).reshape(count, self._n_vocab)
        if not np.isfinite(rows.sum(dtype=np.float64)):
            raise ModelError(
                "NaN or infinity in its output; the weights are broken, download or export it again"
            )
        return rows

    def fork(self, count: int) -> None:
        """Let branches 1 … `count` continue sequence 0."""
        if not 0 <= count <= self.shape.branches:
            raise ModelError(f"{count} branches; this context has {self.shape.branches}")
        for branch in range(1, count + 1):
            api.llama_memory_seq_cp(self._memory, 0, branch, -1, -1)

    def join(self, count: int) -> None:
        """Drop what branches 1 … `count` added to sequence 0."""
        for branch in range(1, count + 1):
            api.llama_memory_seq_rm(self._memory, branch, -1, -1)

    def close(self) -> None:
        """Free the context."""
        if self._handle:
            api.llama_free(self._handle)
            self._handle = None

    def _check(self, count: int, outputs: int) -> None:
        if not 0 < count <= self.n_batch:
            raise ModelError(f"a batch of {count} tokens; this context takes 1 … {self.n_batch}")
        if outputs > self.max_outputs:
            raise ModelError(f"{outputs} outputs in one batch; this context gives at most {self.max_outputs}")

    def _decode(self, count: int) -> None:
        self._batch.n_tokens = count
        forget_errors()
        code = api.llama_decode(self._handle, self._batch)
        if code:
            reason = _REASONS.get(code, "unknown reason")
            raise ModelError(f"decode failed with code {code}: {reason} ({first_error()})")
