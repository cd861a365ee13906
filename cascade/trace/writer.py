"""One thread that writes: what waits is handed over together, so that many callers pay for one commit."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_GROUP = 256  # most items in one commit

T = TypeVar("T")


class Writer(Generic[T]):
    """Hands items over on a thread of its own, in the order in which they came, all that wait at once.

    Args:
        name: of the thread.
        write: takes some items; it must not raise.
    """

    def __init__(self, name: str, write: Callable[[list[T]], None]) -> None:
        self._name, self._write = name, write
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, item: T) -> bool:
        """Hand over `item`; False if the writer is closed, which takes no more."""
        with self._lock:
            if self._closed:
                return False
            if self._thread is None:
                # A daemon, so that a writer nobody closed cannot keep the process alive; atexit drains it.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._queue.put(item)
        return True

    def close(self) -> None:
        """Write what was handed over, then end; may be called again."""
        with self._lock:
            first, self._closed = not self._closed, True
        if self._thread is not None:
            if first:
                self._queue.put(None)
            self._thread.join()
            atexit.unregister(self.close)

    def _work(self) -> None:
        last = False
        while not last:
            group = [self._queue.get()]
            while len(group) < _GROUP and not self._queue.empty():
                group.append(self._queue.get())
            last = group[-1] is None  # close() puts None, and nothing comes after it
            items = [item for item in group if item is not None]
            if items:
                self._write(items)
