"""Prompts that begin alike: what they share is evaluated once and copied.

A slot keeps its tokens after its sequence is done, and memory keeps them when the slot is needed for another
prompt. A prompt that begins like any of them, or like one that is being answered, takes over what both share.
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

IntArray = npt.NDArray[np.int32]
ByteArray = npt.NDArray[np.uint8]
MIN_PREFIX_TOKENS = 32  # tokens; copying fewer saves nothing worth having
MAX_PREFIX_BYTES = 256 * 2**20


class _Saved(NamedTuple):
    tokens: IntArray
    state: ByteArray


class PrefixCache:
    """The saved beginnings of one context's prompts, least recently used first.

    Attributes:
        shortest: tokens that a beginning must have.
        bytes: memory that the saved states use.
    """

    def __init__(self, max_bytes: int = MAX_PREFIX_BYTES, shortest: int = MIN_PREFIX_TOKENS) -> None:
        self.shortest = shortest
        self.bytes = 0
        self._max_bytes = max_bytes
        self._saved: OrderedDict[bytes, _Saved] = OrderedDict()

    def __len__(self) -> int:
        return len(self._saved)

    def fill(self, context: Context, slot: int, prompt: IntArray, others: dict[int, IntArray]) -> int:
        """Put the longest known beginning of `prompt` into `slot`; return its length, 0 for none.

        The last token is never copied: its logits row is needed.

        Args:
            context: where `slot` is; its old content goes, and is kept if nothing of it is used.
            slot: an unused slot; its own old content may be in `others`.
            prompt: the tokens to begin.
            others: slot → the tokens that are in it.
        """
        wanted = prompt[:-1]
        length, _, source = max(
            (
                (common_prefix_length(wanted, tokens), other == slot, other)
                for other, tokens in others.items()
            ),
            default=(0, False, -1),
        )
        saved = max(
            self._saved.values(), key=lambda entry: common_prefix_length(wanted, entry.tokens), default=None
        )
        better = saved is not None and common_prefix_length(wanted, saved.tokens) > length
        if source == slot and length >= self.shortest and not better:
            context.truncate(slot, length)
            return length
        if slot in others:
            self.keep(context, slot, others[slot])
        if saved is not None and better and common_prefix_length(wanted, saved.tokens) >= self.shortest:
            return self._restore(context, slot, wanted, saved)
        if length < self.shortest or not context.restore(slot, context.save(source)):
            context.truncate(slot, 0)
            return 0
        context.truncate(slot, length)
        return length

    def keep(self, context: Context, slot: int, tokens: IntArray) -> None:
        """Save `tokens`, with which `slot` begins, unless they are too few or too large."""
        key = tokens.tobytes()
        if len(tokens) < self.shortest or key in self._saved:
            return
        context.truncate(slot, len(tokens))
        self.put(tokens, context.save(slot, keep=True))

    def put(self, tokens: IntArray, state: ByteArray) -> None:
        """Keep the saved `state` of `tokens`, unless it is too large."""
        key = tokens.tobytes()
        if len(state) > self._max_bytes:
            return
        self._drop(key)
        while self.bytes + len(state) > self._max_bytes:
            self._drop(next(iter(self._saved)))
        self._saved[key] = _Saved(tokens.copy(), state)
        self.bytes += len(state)

    def clear(self) -> None:
        """Forget everything."""
        self._saved.clear()
        self.bytes = 0

    def _restore(self, context: Context, slot: int, wanted: IntArray, saved: _Saved) -> int:
        key = saved.tokens.tobytes()
        if not context.restore(slot, saved.state):  # it does not fit any more
            self._drop(key)
            return 0
        if key in self._saved:  # making room may have dropped it
            self._saved.move_to_end(key)
        length = common_prefix_length(wanted, saved.tokens)
        context.truncate(slot, length)
        return length

    def _drop(self, key: bytes) -> None:
        entry = self._saved.pop(key, None)
        if entry is not None:
            self.bytes -= len(entry.state)


def common_prefix_length(first: IntArray, second: IntArray) -> int:
    """Return how many tokens `first` and `second` have in common at their beginning."""
    size = min(len(first), len(second))
    different = first[:size] != second[:size]
    return int(different.argmax()) if different.any() else size


_DIGEST = 32
_log = logging.getLogger("cascade.engine")


class PrefixFiles:
    """A folder of saved beginnings, for one model file and kind of context.

    Files are named by what they belong to, so another model, or the same one exported anew, never finds them.
    """

    def __init__(self, folder: Path, model: Path, kind: str) -> None:
        about = model.stat()
        self._folder = folder
        # Another llama.cpp may lay a state out in another way.
        self._owner = f"1 {version} {model.resolve()} {about.st_size} {about.st_mtime_ns} {kind}".encode()

    def load(self, tokens: IntArray) -> ByteArray | None:
        """Return the state of `tokens`; None if there is none, or it is damaged."""
        path = self._path(tokens)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if data[:_DIGEST] != self._digest(tokens, data[_DIGEST:]):
            _log.warning("%s is damaged and not used; it is written anew", path)
            return None
        return np.frombuffer(data, np.uint8, offset=_DIGEST).copy()

    def save(self, tokens: IntArray, state: ByteArray) -> None:
        """Write the state of `tokens`; a folder that cannot be written costs a warning."""
        path = self._path(tokens)
        data = state.tobytes()
        try:
            replace_file(path, self._digest(tokens, data) + data)
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
