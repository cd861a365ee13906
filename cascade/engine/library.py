"""The loaded files of this process: each once, for all graphs, under one bound of memory."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from cascade.engine.weights import Weights
from cascade.errors import ModelError

MEMORY = "CASCADE_ENGINE_MEMORY"
_MIB = 2**20
_log = logging.getLogger("cascade.engine")


def memory_bound() -> int:
    """Return the bytes that all local models together may use: CASCADE_ENGINE_MEMORY MiB, else half the RAM.

    Raises:
        ModelError: the variable is no positive number.
    """
    text = os.environ.get(MEMORY)
    if text is None:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if not text.isdecimal() or int(text) < 1:
        raise ModelError(f"{MEMORY} is {text!r}; expected a number of MiB, 4096 for instance")
    return int(text) * _MIB


class Library:
    """Files by path, least recently used first, counted by users.

    A file stays loaded while it has users. Above the bound the one that was used least recently is freed,
    unless it is at work; its users load it again with their next request.
    """

    def __init__(self) -> None:
        self._loaded: dict[Path, Weights] = {}
        self._users: Counter[Path] = Counter()

    def acquire(self, path: Path) -> Weights:
        """Return the weights of `path`, loading them for the first user."""
        if path not in self._loaded:
            memory_bound()  # a wrong setting is told before a long load
            self._loaded[path] = Weights(path)
        self._users[path] += 1
        weights = self._loaded[path]
        self.touch(weights)
        return weights

    def touch(self, weights: Weights) -> None:
        """Note that `weights` are used now, and free others where memory is over its bound."""
        self._loaded[weights.path] = self._loaded.pop(weights.path)
        bound = memory_bound()
        for other in list(self._loaded.values())[:-1]:
            if self.memory <= bound:
                return
            if not other.at_work:
                _log.info("unloading %s: the models use %d MiB", other.path, self.memory // _MIB)
                self._loaded.pop(other.path).close()

    def release(self, weights: Weights) -> None:
        """Give `weights` back; the last user's release frees them."""
        path = weights.path
        self._users[path] -= 1
        if self._users[path] <= 0:
            del self._users[path]
            if path in self._loaded:
                self._loaded.pop(path).close()

    @property
    def memory(self) -> int:
        """Bytes that the loaded files use."""
        return sum(weights.memory for weights in self._loaded.values())

    def close(self) -> None:
        """Free everything."""
        for weights in self._loaded.values():
            weights.close()
        self._loaded.clear()
        self._users.clear()

    def __len__(self) -> int:
        return len(self._loaded)
