"""One llama.cpp context: batches of tokens in, logits rows out. Used on the decode thread only.

What would make llama.cpp abort the process is refused before the call, here and in `engine.batch`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.batch import Batch, BatchLimits
from cascade.engine.binding import api, first_error, forget_errors, logits_address
from cascade.engine.memory import allocate_state, large_pages
from cascade.engine.stats import check_finite
from cascade.errors import ModelError

MAX_BATCH = 512
MAX_BRANCHES = 255  # of 256 sequence ids; more make llama.cpp abort
_OUTPUT_FLOATS = 2**24  # 64 MiB of logits in one decode


class ContextShape(NamedTuple):
    """How a context is made.

    `n_ctx` is the tokens that one sequence may have, `n_threads` the threads of a decode. A context is for
    a prompt with `branches` that share its cells, or for `slots` sequences: each with cells of its own, or
    `packed` into one pool of `n_ctx` cells, so that prompts of any length make one matrix. `flash` turns
    flash attention on. `adapter` is the LoRA file that it decodes with.
    """

    n_ctx: int
    n_threads: int
    branches: int = 0
    slots: int = 1
    packed: bool = False
    flash: bool = False
    adapter: Path | None = None

    @property
    def cells(self) -> int:
        """Tokens that the context has room for."""
        return self.n_ctx if self.packed or self.branches else self.n_ctx * self.slots

    @property
    def sequences(self) -> int:
        """Sequence ids that the context has."""
        return max(self.slots, 1 + self.branches)

    def rows(self, n_vocab: int) -> int:
        """Logits rows of one decode that memory is spent on; a tree needs one of every token."""
        return 2 * _OUTPUT_FLOATS // n_vocab if self.branches else max(self.slots, _OUTPUT_FLOATS // n_vocab)


def max_branches(n_ctx: int, n_vocab: int) -> int:
    """Return the most branches of a context: with the prompt, as many as it gives logits rows."""
    rows = min(n_ctx, MAX_BATCH, ContextShape(n_ctx, 1, branches=1).rows(n_vocab))
    return max(1, min(MAX_BRANCHES, rows - 1))


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


def attach(context: Any, adapter: Any) -> None:
    """Have llama.cpp's `context` use `adapter`.

    Raises:
        ModelError: llama.cpp refuses.
    """
    adapters = (api.llama_adapter_lora_p_ctypes * 1)(adapter)
    if api.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
        raise ModelError(f"llama.cpp cannot use the adapter: {first_error()}")


IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


class Context:
    """A KV cache with its batch buffers.

    With branches, sequence 0 holds the prompt and branches are 1 … `shape.branches`.

    Attributes:
        shape: how it was made.
        n_batch: most tokens in one decode.
        max_outputs: most logits rows in one decode.
        n_outputs: logits rows of the last decode.
        batch: what `run` decodes.
        flag: set from any thread, it ends the decode in flight.
        lent: whether a job has the context for itself.
        held: the prompt that such a job left in sequence 0, alone in the context; empty after a failed one.
    """

    def __init__(
        self, model: Any, n_vocab: int, causal: bool, shape: ContextShape, adapter: Any = None
    ) -> None:
        """Make a context of `model`, with llama.cpp's pointer to a LoRA `adapter` or None.

        Raises:
            ModelError: llama.cpp cannot make it, most often for lack of memory.
        """
        if not 0 <= shape.branches <= MAX_BRANCHES:
            raise ModelError(f"{shape.branches} branches; a context has at most {MAX_BRANCHES}")
        self.shape, self.lent, self.held = shape, False, np.empty(0, np.int32)
        self.n_vocab, self._model, self._adapter = n_vocab, model, adapter
        # A non-causal model must see the whole prompt in one micro-batch, else llama.cpp aborts.
        self.n_batch = min(shape.n_ctx, MAX_BATCH) if causal else shape.n_ctx
        self.max_outputs = max(1, min(self.n_batch, shape.rows(n_vocab)))
        self.n_outputs = 0
        self._view: tuple[tuple[int, int], FloatArray] | None = None  # making it costs 60 µs after a decode
        self._open()

    def _open(self) -> None:
        if self.shape.sequences > self.max_outputs:  # llama.cpp aborts
            raise ModelError(f"{self.shape.sequences} sequences, {self.max_outputs} logits rows; raise n_ctx")
        forget_errors()
        with large_pages():
            self._handle = api.llama_init_from_model(self._model, self._params())
        if not self._handle:
            raise ModelError(
                f"llama.cpp cannot make a context of {self.shape.n_ctx} tokens: {first_error()}; lower n_ctx"
            )
        self._memory, self._threads = api.llama_get_memory(self._handle), self.shape.n_threads
        self.batch = Batch(
            BatchLimits(self.n_batch, self.max_outputs, self.shape.sequences, self.shape.branches)
        )
        self.flag = AbortFlag(self._handle)
        if self._adapter is not None:
            attach(self._handle, self._adapter)

    def resize(self, slots: int) -> None:
        """Have `slots` empty slots.

        Raises:
            ModelError: llama.cpp cannot make them, most often for lack of memory; the context is closed.
        """
        self.close()
        self.shape = self.shape._replace(slots=slots)
        self._open()

    def _params(self) -> Any:
        shape = self.shape
        # Branches share the prompt's cells, packed prompts a pool; slots have cells of their own.
        unified = shape.packed or shape.branches > 0
        params = api.llama_context_default_params()
        params.n_ctx = shape.cells
        params.n_batch = params.n_ubatch = self.n_batch
        params.n_outputs_max = self.max_outputs
        params.n_seq_max = shape.sequences
        params.kv_unified = unified
        params.n_threads = params.n_threads_batch = shape.n_threads
        params.flash_attn_type = int(shape.flash)
        params.no_perf = True
        return params

    @property
    def handle(self) -> Any:
        """llama.cpp's pointer, for its samplers."""
        return self._handle

    def use_threads(self, threads: int) -> None:
        """Have the next decodes use so many threads."""
        if threads != self._threads:
            api.llama_set_n_threads(self._handle, threads, threads)
            self._threads = threads

    def run(self) -> None:
        """Decode the batch and empty it.

        Raises:
            DecodeError: llama.cpp returned an error. What the batch had added to each sequence may be
                there or not; `truncate` the sequences.
        """
        self.n_outputs = self.batch.rows
        forget_errors()
        code = api.llama_decode(self._handle, self.batch.take())
        if code:
            self.n_outputs = 0
            raise DecodeError(code)

    def feed(self, tokens: IntArray, start: int, *, output: bool) -> None:
        """Append `tokens` to sequence 0 from position `start`; `output` keeps the last one's logits row."""
        self.batch.clear()
        self.batch.add(0, tokens, start, int(output))
        self.run()

    def feed_branches(
        self, tokens: Sequence[int], positions: Sequence[int], branches: Sequence[Sequence[int]]
    ) -> None:
        """Append one token to each of its `branches` (1-based) and keep the logits row of every token."""
        self.batch.branches(tokens, positions, branches)
        self.run()

    def logits(self, count: int) -> FloatArray:
        """Return `count` logits rows of the last decode, shape (count, vocabulary), unchecked.

        They are in the order of the batch, and a view that the next decode overwrites.

        Raises:
            ModelError: the last decode gave fewer rows.
        """
        address = logits_address(self._handle)
        if not address or not 0 < count <= self.n_outputs:
            raise ModelError(f"llama.cpp has no {count} logits rows; the last decode gave {self.n_outputs}")
        if self._view is None or self._view[0] != (address, self.n_outputs):
            buffer = (ctypes.c_float * (self.n_outputs * self.n_vocab)).from_address(address)
            rows = np.ctypeslib.as_array(buffer).reshape(self.n_outputs, self.n_vocab)
            self._view = (address, self.n_outputs), rows
        return self._view[1][:count]

    def rows(self, count: int = 1) -> FloatArray:
        """Return `logits(count)`, checked.

        Raises:
            ModelError: a value is NaN or infinite.
        """
        rows = self.logits(count)
        check_finite(rows)
        return rows

    def clear(self) -> None:
        """Forget all tokens."""
        api.llama_memory_clear(self._memory, False)

    def truncate(self, slot: int, length: int) -> None:
        """Keep the first `length` tokens of `slot`."""
        self.batch.check_slots((slot,))
        api.llama_memory_seq_rm(self._memory, slot, length, -1)

    def save(self, slot: int, *, keep: bool = False) -> ByteArray:
        """Return a copy of the state of `slot`, for `restore` in a context of the same model and kind.

        `keep` says that it is to be kept for long.

        Raises:
            ModelError: llama.cpp cannot copy it.
        """
        self.batch.check_slots((slot,))
        size = int(api.llama_state_seq_get_size(self._handle, slot))
        state = allocate_state(size) if keep else np.empty(size, np.uint8)
        address = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if api.llama_state_seq_get_data(self._handle, address, size, slot) != size:
            raise ModelError(f"llama.cpp cannot copy the {size} bytes of sequence {slot}")
        return state

    def restore(self, slot: int, state: ByteArray) -> bool:
        """Replace the tokens of `slot` by a saved state; False leaves the slot empty: it does not fit."""
        self.truncate(slot, 0)
        fitting = refit_state(state, 1 if self.shape.packed or self.shape.branches else self.shape.slots)
        if fitting is None:
            return False
        state = fitting
        address = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if api.llama_state_seq_set_data(self._handle, address, len(state), slot) > 0:
            return True
        self.truncate(slot, 0)
        return False

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

    def copy(self, source: int, target: int, length: int) -> None:
        """Let branch `target` start with the first `length` tokens of `source` (0 is the prompt)."""
        if not (0 <= source <= self.shape.branches and 1 <= target <= self.shape.branches):
            raise ModelError(f"branches {source} and {target} are outside 1 … {self.shape.branches}")
        api.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def drop(self, branch: int, start: int = 0) -> None:
        """Forget what `branch` holds from position `start` on."""
        if not 1 <= branch <= self.shape.branches:
            raise ModelError(f"branch {branch} is outside 1 … {self.shape.branches}")
        api.llama_memory_seq_rm(self._memory, branch, start, -1)

    def close(self) -> None:
        """Free the context."""
        if self._handle:
            api.llama_free(self._handle)
            self._handle = None


_HEADER = 2  # words before all that: a magic number and the sequence


def refit_state(state: ByteArray, slots: int) -> ByteArray | None:
    """Return `state` for a context of `slots` slots; None if it is not laid out as above."""
    words = state[: len(state) // 4 * 4].view(np.uint32)
    if len(words) <= _HEADER:
        return None
    before = int(words[_HEADER])
    if before == slots:
        return state
    filled = np.flatnonzero(words[_HEADER + 1 : _HEADER + 1 + before])
    if not len(filled):
        return None
    first = 4 * (_HEADER + 1 + int(filled[0]))
    end = len(state) - 4 * (before - 1 - int(filled[0]))
    if state[end:].any():
        return None
    return np.concatenate([
        state[: 4 * _HEADER], _bytes(slots), state[first:end], _bytes(*[0] * (slots - 1)),
    ])  # fmt: skip


def _bytes(*words: int) -> ByteArray:
    return np.array(words, np.uint32).view(np.uint8)
