"""One llama.cpp context: batches of tokens in, logits rows out. Used on the decode thread only.

Calls that would make llama.cpp abort the process are refused before they are made, here and in
`engine.batch`.
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

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

MAX_BATCH = 512
MAX_BRANCHES = 255  # llama.cpp aborts beyond 256 sequence ids; one holds the prompt
ABORTED = 2  # llama.cpp's code for a decode that its abort callback ended
_OUTPUT_FLOATS = 2**24  # 64 MiB of logits in one decode
_STATE_HEADER_WORDS = 2  # a magic number and the sequence
_REASONS = {
    1: "the context is full",
    ABORTED: "the decode was aborted",
    -1: "llama.cpp refused the batch",
    -2: "out of memory",
    -3: "the computation failed",
}
# ggml asks its abort callback before every operation, several hundred times a decode. A Python function
# would need the interpreter's lock each time, so the callback is the C library's `strlen` over two bytes:
# the length of "" is false, that of a one-letter string is true.
_strlen = ctypes.cast(ctypes.CDLL(None).strlen, api.ggml_abort_callback)


class ContextShape(NamedTuple):
    """Size and kind of a context.

    A context serves either one prompt with branches or several independent sequences in slots.

    Attributes:
        n_ctx: tokens that one sequence may hold.
        n_threads: threads of a decode.
        branches: continuations of the prompt; they share its cells.
        slots: independent sequences.
        packed: whether the slots share one pool of `n_ctx` cells, so that prompts of any length form one
            matrix; otherwise each slot has `n_ctx` cells of its own.
        flash: whether flash attention is on.
        adapter: the LoRA file to decode with.
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
        """Number of sequence ids."""
        return max(self.slots, 1 + self.branches)

    def rows(self, n_vocab: int) -> int:
        """Return how many logits rows of one decode get memory; a label tree needs one for each token."""
        return 2 * _OUTPUT_FLOATS // n_vocab if self.branches else max(self.slots, _OUTPUT_FLOATS // n_vocab)


def max_branches(n_ctx: int, n_vocab: int) -> int:
    """Return how many branches fit: together with the prompt they need one logits row each."""
    rows = min(n_ctx, MAX_BATCH, ContextShape(n_ctx, 1, branches=1).rows(n_vocab))
    return max(1, min(MAX_BRANCHES, rows - 1))


class DecodeError(ModelError):
    """llama.cpp's decode returned the error `code`."""

    def __init__(self, code: int) -> None:
        reason = _REASONS.get(code, "unknown reason")
        super().__init__(f"decode failed with code {code}: {reason} ({first_error()})")
        self.code = code


class AbortFlag:
    """Ends the decode of one context from any thread."""

    def __init__(self, handle: Any) -> None:
        self._bytes = (ctypes.c_ubyte * 2)()  # must live as long as the context, which points to it
        api.llama_set_abort_callback(handle, _strlen, ctypes.cast(self._bytes, ctypes.c_void_p))

    def set(self) -> None:
        """End the decode in flight at its next operation."""
        self._bytes[0] = 1

    def clear(self) -> None:
        """Let the next decode run."""
        self._bytes[0] = 0


class Context:
    """A KV cache with its batch buffers.

    In a context with branches, sequence 0 holds the prompt and the branches are 1 … `shape.branches`.

    Attributes:
        shape: its size and kind.
        n_batch: maximum tokens of one decode.
        max_outputs: maximum logits rows of one decode.
        n_outputs: logits rows of the last decode.
        batch: the tokens of the next `decode`.
        abort_flag: ends the decode in flight.
        in_use: whether a job has the context to itself.
        held_prompt: the prompt that such a job left in sequence 0, with nothing else in the context; empty
            after a failed job.
    """

    def __init__(
        self, model: Any, n_vocab: int, causal: bool, shape: ContextShape, adapter: Any = None
    ) -> None:
        """Make a context of llama.cpp's `model`, with its pointer to a LoRA `adapter` or None.

        Raises:
            ModelError: llama.cpp cannot make it, usually for lack of memory.
        """
        if not 0 <= shape.branches <= MAX_BRANCHES:
            raise ModelError(f"{shape.branches} branches; a context has at most {MAX_BRANCHES}")
        self.shape, self.in_use, self.held_prompt = shape, False, np.empty(0, np.int32)
        self.n_vocab, self._model, self._adapter = n_vocab, model, adapter
        # A non-causal model must see the whole prompt in one micro-batch, or llama.cpp aborts.
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
        self.abort_flag = AbortFlag(self._handle)
        if self._adapter is not None:
            _attach_adapter(self._handle, self._adapter)

    def resize(self, slots: int) -> None:
        """Replace the context by one with `slots` empty slots.

        Raises:
            ModelError: llama.cpp cannot make it, usually for lack of memory; the context is closed then.
        """
        self.close()
        self.shape = self.shape._replace(slots=slots)
        self._open()

    def _params(self) -> Any:
        shape = self.shape
        # Branches share the prompt's cells and packed prompts share a pool; slots have cells of their own.
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
        """Set the number of threads for the next decodes."""
        if threads != self._threads:
            api.llama_set_n_threads(self._handle, threads, threads)
            self._threads = threads

    def decode(self) -> None:
        """Decode the batch and clear it.

        Raises:
            DecodeError: llama.cpp returned an error. Each sequence may or may not hold what the batch added
                to it; `truncate` the sequences.
        """
        self.n_outputs = self.batch.rows
        forget_errors()
        code = api.llama_decode(self._handle, self.batch.take())
        if code:
            self.n_outputs = 0
            raise DecodeError(code)

    def feed(self, tokens: IntArray, start: int, *, output: bool) -> None:
        """Append `tokens` to sequence 0 from position `start`; `output` keeps the last token's logits row."""
        self.batch.clear()
        self.batch.add(0, tokens, start, int(output))
        self.decode()

    def feed_branches(
        self, tokens: Sequence[int], positions: Sequence[int], branches: Sequence[Sequence[int]]
    ) -> None:
        """Append each token to its own list of `branches` (1-based) and keep the logits row of each."""
        self.batch.fill_branches(tokens, positions, branches)
        self.decode()

    def logits(self, count: int) -> FloatArray:
        """Return the first `count` logits rows of the last decode, shape (count, vocabulary), unchecked.

        Rows are in batch order. The array is a view that the next decode overwrites.

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
        """Return `logits(count)` after checking them.

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
        """Keep only the first `length` tokens of `slot`."""
        self.batch.check_slots((slot,))
        api.llama_memory_seq_rm(self._memory, slot, length, -1)

    def save(self, slot: int, *, long_lived: bool = False) -> ByteArray:
        """Return a copy of the state of `slot`, for `restore` in a context of the same model and kind.

        Args:
            slot: the sequence to copy.
            long_lived: whether the copy is kept for long; it then gets memory pages of its own.

        Raises:
            ModelError: llama.cpp cannot copy it.
        """
        self.batch.check_slots((slot,))
        size = int(api.llama_state_seq_get_size(self._handle, slot))
        state = allocate_state(size) if long_lived else np.empty(size, np.uint8)
        address = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if api.llama_state_seq_get_data(self._handle, address, size, slot) != size:
            raise ModelError(f"llama.cpp cannot copy the {size} bytes of sequence {slot}")
        return state

    def restore(self, slot: int, state: ByteArray) -> bool:
        """Replace the tokens of `slot` by a saved state; False if it does not fit, which empties the slot."""
        self.truncate(slot, 0)
        fitted = _fit_state(state, 1 if self.shape.packed or self.shape.branches else self.shape.slots)
        if fitted is None:
            return False
        address = fitted.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if api.llama_state_seq_set_data(self._handle, address, len(fitted), slot) > 0:
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


def _attach_adapter(context: Any, adapter: Any) -> None:
    """Make llama.cpp's `context` decode with `adapter`; all sequences of a context share it.

    Raises:
        ModelError: llama.cpp refuses.
    """
    adapters = (api.llama_adapter_lora_p_ctypes * 1)(adapter)
    if api.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
        raise ModelError(f"llama.cpp cannot use the adapter: {first_error()}")


def _fit_state(state: ByteArray, slots: int) -> ByteArray | None:
    """Return the saved `state` of one sequence as a context with `slots` slots would write it.

    After a header llama.cpp writes the number of slots (a 32-bit word), then for each slot the number of
    its cells (another word) and the cells themselves, if any. It refuses a state from a context with
    another number of slots, although only one slot of a saved sequence has cells.

    Returns:
        The state; None if it is not laid out like this.
    """
    words = state[: len(state) // 4 * 4].view(np.uint32)
    if len(words) <= _STATE_HEADER_WORDS:
        return None
    old_slots = int(words[_STATE_HEADER_WORDS])
    if old_slots == slots:
        return state
    filled = np.flatnonzero(words[_STATE_HEADER_WORDS + 1 : _STATE_HEADER_WORDS + 1 + old_slots])
    if not len(filled):
        return None
    start = 4 * (_STATE_HEADER_WORDS + 1 + int(filled[0]))
    end = len(state) - 4 * (old_slots - 1 - int(filled[0]))
    if state[end:].any():
        return None
    header = state[: 4 * _STATE_HEADER_WORDS]
    return np.concatenate([header, _word_bytes(slots), state[start:end], _word_bytes(*[0] * (slots - 1))])


def _word_bytes(*words: int) -> ByteArray:
    return np.array(words, np.uint32).view(np.uint8)
