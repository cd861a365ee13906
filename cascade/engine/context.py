"""One llama.cpp context: batches of tokens in, logits rows out. Used on the decode thread only.

Every condition under which llama.cpp aborts the process (a batch over `n_batch`, more outputs than
`n_outputs_max`, a sequence id out of range) is checked here before the call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.engine.abort import AbortFlag
from cascade.engine.adapter import attach
from cascade.engine.binding import api, first_error, forget_errors, logits_address
from cascade.engine.failure import DecodeError
from cascade.engine.finite import check_finite
from cascade.engine.pages import large_pages
from cascade.engine.shape import MAX_BATCH, MAX_BRANCHES, Shape
from cascade.engine.state import lasting, refit
from cascade.errors import ModelError

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
        flag: set from any thread, it ends the decode in flight.
        lent: whether a job has the context for itself.
        held: the prompt that such a job left in sequence 0, alone in the context; empty after a failed one.
    """

    def __init__(self, model: Any, n_vocab: int, causal: bool, shape: Shape, adapter: Any = None) -> None:
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
        self.n_outputs = self._count = self._pending = 0
        self._view: tuple[tuple[int, int], FloatArray] | None = None  # making it costs 60 µs after a decode
        self._make_batch()
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
        self._memory = api.llama_get_memory(self._handle)
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

    def add_steps(self, slots: Sequence[int], tokens: Sequence[int], positions: Sequence[int]) -> None:
        """Make a batch of one token for each of `slots`; all of them get a logits row."""
        count = len(slots)
        self._check(count, count)
        self._check_slots(slots)
        self._token[:count] = tokens
        self._pos[:count] = positions
        self._n_seq[:count] = 1
        self._seq[:count, 0] = slots
        self._output[:count] = 1
        self._count = self._pending = count

    def add(self, slot: int, tokens: IntArray, start: int, outputs: int) -> None:
        """Add `tokens` to `slot` from position `start`; the last `outputs` of them get a logits row."""
        first, last = self._count, self._count + len(tokens)
        self._check(last if len(tokens) else 0, self._pending + outputs)
        self._check_slots((slot,))
        self._token[first:last] = tokens
        self._pos[first:last] = np.arange(start, start + len(tokens))
        self._n_seq[first:last] = 1
        self._seq[first:last, 0] = slot
        self._output[first:last] = 0
        self._output[last - outputs : last] = 1
        self._count, self._pending = last, self._pending + outputs

    def discard(self) -> None:
        """Empty the batch."""
        self._count = self._pending = 0

    def run(self) -> None:
        """Decode the batch and empty it.

        Raises:
            DecodeError: llama.cpp returned an error. What the batch had added to each sequence may be
                there or not; `truncate` the sequences.
        """
        count, self.n_outputs = self._count, self._pending
        self._count = self._pending = 0
        self._batch.n_tokens = count
        forget_errors()
        code = api.llama_decode(self._handle, self._batch)
        if code:
            self.n_outputs = 0
            raise DecodeError(code)

    def feed(self, tokens: IntArray, start: int, *, output: bool) -> None:
        """Append `tokens` to sequence 0 from position `start`; `output` keeps the last one's logits row."""
        self.discard()
        self.add(0, tokens, start, int(output))
        self.run()

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
        self._count = self._pending = count
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
        self._check_slots((slot,))
        api.llama_memory_seq_rm(self._memory, slot, length, -1)

    def save(self, slot: int, *, keep: bool = False) -> ByteArray:
        """Return a copy of the state of `slot`, for `restore` in a context of the same model and kind.

        `keep` says that it is to be kept for long.

        Raises:
            ModelError: llama.cpp cannot copy it.
        """
        self._check_slots((slot,))
        size = int(api.llama_state_seq_get_size(self._handle, slot))
        state = lasting(size) if keep else np.empty(size, np.uint8)
        address = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if api.llama_state_seq_get_data(self._handle, address, size, slot) != size:
            raise ModelError(f"llama.cpp cannot copy the {size} bytes of sequence {slot}")
        return state

    def restore(self, slot: int, state: ByteArray) -> bool:
        """Replace the tokens of `slot` by a saved state; False leaves the slot empty: it does not fit."""
        self.truncate(slot, 0)
        fitting = refit(state, 1 if self.shape.packed or self.shape.branches else self.shape.slots)
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

    def _check(self, count: int, outputs: int) -> None:
        if not 0 < count <= self.n_batch:
            raise ModelError(f"a batch of {count} tokens; this context takes 1 … {self.n_batch}")
        if outputs > self.max_outputs:
            raise ModelError(f"{outputs} outputs in one batch; this context gives at most {self.max_outputs}")

    def _check_slots(self, slots: Sequence[int]) -> None:
        if min(slots) < 0 or max(slots) >= self.shape.sequences:
            raise ModelError(f"sequences {list(slots)} are outside 0 … {self.shape.sequences - 1}")
