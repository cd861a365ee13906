"""Prompts with a common prefix: the prefix is evaluated once, then copied.

A slot keeps its tokens after its sequence is done, and `PrefixCache` keeps them when another prompt needs the
slot. A prompt that starts like any of these, or like one that is being answered, copies the common part.
`PrefixFiles` keeps the prefix of all requests of a model on disk, for the next process.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.binding import version
from cascade.engine.context import Context
from cascade.files import replace_file
from cascade.formats.gguf_parts import model_files

IntArray = npt.NDArray[np.int32]
ByteArray = npt.NDArray[np.uint8]

MIN_PREFIX_TOKENS = 32  # copying a shorter prefix saves nothing worth having
MAX_PREFIX_BYTES = 256 * 2**20
_DIGEST_BYTES = 32
_log = logging.getLogger("cascade.engine")


def common_prefix_length(first: IntArray, second: IntArray) -> int:
    """Return how many leading tokens `first` and `second` have in common."""
    size = min(len(first), len(second))
    different = first[:size] != second[:size]
    return int(different.argmax()) if different.any() else size


class _SavedPrefix(NamedTuple):
    tokens: IntArray
    state: ByteArray


class PrefixCache:
    """Saved prefixes of one context's prompts; the least recently used is dropped first.

    Attributes:
        min_tokens: length below which a prefix is not reused.
        bytes: memory of the saved states.
    """

    def __init__(self, max_bytes: int = MAX_PREFIX_BYTES, min_tokens: int = MIN_PREFIX_TOKENS) -> None:
        self.min_tokens = min_tokens
        self.bytes = 0
        self._max_bytes = max_bytes
        self._saved: OrderedDict[bytes, _SavedPrefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._saved)

    def fill_slot(self, context: Context, slot: int, prompt: IntArray, held: dict[int, IntArray]) -> int:
        """Put the longest known prefix of `prompt` into `slot`; return its length, 0 for none.

        The last token is never copied, because its logits row is needed.

        Args:
            context: the context of `slot`.
            slot: an unused slot. Its old tokens are replaced; they are saved if no part of them is reused.
            prompt: the tokens to start with.
            held: slot → the tokens in it, for every slot with tokens, `slot` included.
        """
        wanted = prompt[:-1]
        length, _, source = max(
            ((common_prefix_length(wanted, tokens), other == slot, other) for other, tokens in held.items()),
            default=(0, False, -1),
        )
        saved = max(
            self._saved.values(), key=lambda entry: common_prefix_length(wanted, entry.tokens), default=None
        )
        saved_length = 0 if saved is None else common_prefix_length(wanted, saved.tokens)
        if source == slot and length >= self.min_tokens and saved_length <= length:
            context.truncate(slot, length)
            return length
        if slot in held:
            self.save(context, slot, held[slot])
        if saved is not None and saved_length > length and saved_length >= self.min_tokens:
            return self._restore(context, slot, wanted, saved)
        if length < self.min_tokens or not context.restore(slot, context.save(source)):
            context.truncate(slot, 0)
            return 0
        context.truncate(slot, length)
        return length

    def save(self, context: Context, slot: int, tokens: IntArray) -> None:
        """Save `tokens`, with which `slot` starts, unless they are too few or their state is too large."""
        key = tokens.tobytes()
        if len(tokens) < self.min_tokens or key in self._saved:
            return
        context.truncate(slot, len(tokens))
        self.put(tokens, context.save(slot, long_lived=True))

    def put(self, tokens: IntArray, state: ByteArray) -> None:
        """Add the saved `state` of `tokens` unless it is too large."""
        key = tokens.tobytes()
        if len(state) > self._max_bytes:
            return
        self._drop(key)
        while self.bytes + len(state) > self._max_bytes:
            self._drop(next(iter(self._saved)))
        self._saved[key] = _SavedPrefix(tokens.copy(), state)
        self.bytes += len(state)

    def _restore(self, context: Context, slot: int, wanted: IntArray, saved: _SavedPrefix) -> int:
        key = saved.tokens.tobytes()
        if not context.restore(slot, saved.state):  # it no longer fits
            self._drop(key)
            return 0
        if key in self._saved:  # saving the slot's old tokens may have dropped it
            self._saved.move_to_end(key)
        length = common_prefix_length(wanted, saved.tokens)
        context.truncate(slot, length)
        return length

    def _drop(self, key: bytes) -> None:
        entry = self._saved.pop(key, None)
        if entry is not None:
            self.bytes -= len(entry.state)


class PrefixFiles:
    """A folder of saved prefixes, for one model file and kind of context.

    llama.cpp loads a damaged state as a success, or aborts the process. So a state reaches it only if its
    checksum is right, and a file appears as a whole or not at all. File names depend on the model file, so
    another model, or the same one exported again, never matches them.
    """

    def __init__(self, folder: Path, model: Path, kind: str) -> None:
        self._folder = folder
        states = [file.stat() for file in model_files(model)]
        changed = " ".join(f"{state.st_size} {state.st_mtime_ns}" for state in states)
        # Another version of llama.cpp may use another layout.
        self._owner = f"1 {version} {model.resolve()} {changed} {kind}".encode()

    def load(self, tokens: IntArray) -> ByteArray | None:
        """Return the state of `tokens`; None if there is none or it is damaged."""
        path = self._path(tokens)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if data[:_DIGEST_BYTES] != self._digest(tokens, data[_DIGEST_BYTES:]):
            _log.warning("%s is damaged and not used; it is written anew", path)
            return None
        return np.frombuffer(data, np.uint8, offset=_DIGEST_BYTES).copy()

    def save(self, tokens: IntArray, state: ByteArray) -> None:
        """Write the state of `tokens`; log a warning if the folder cannot be written."""
        path = self._path(tokens)
        data = state.tobytes()
        try:
            replace_file(path, self._digest(tokens, data) + data, private=True)
        except OSError as error:
            _log.warning(
                "%s cannot be written: %s; the next process evaluates it again; make 'prefix_dir' a folder "
                "with room that can be written",
                path,
                error.strerror,
            )

    def _path(self, tokens: IntArray) -> Path:
        name = hashlib.sha256(self._owner + b"\0" + tokens.tobytes()).hexdigest()[:32]
        return self._folder / f"{name}.prefix"

    def _digest(self, tokens: IntArray, data: bytes) -> bytes:
        return hashlib.sha256(self._owner + b"\0" + tokens.tobytes() + b"\0" + data).digest()
