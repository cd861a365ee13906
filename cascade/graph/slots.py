"""At most so many calls of one model at once, with a bounded queue, over all threads and event loops."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager

from cascade.errors import ModelError


class Slots:
    """Lets `most` calls work at once and `queue` more wait, the longest waiting first.

    asyncio's own semaphore belongs to one event loop; a cascade serves several.
    """

    def __init__(self, name: str, most: int, queue: int) -> None:
        self._name = name
        self._most = most
        self._queue = queue
        self._lock = threading.Lock()
        self._used = 0
        self._waiting: deque[Future[None]] = deque()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one slot.

        Raises:
            ModelError: as many calls as may wait are waiting already.
        """
        waiter = self._enter()
        if waiter is not None:
            try:
                await asyncio.wrap_future(waiter)
            except BaseException:
                with self._lock:
                    if waiter in self._waiting:
                        self._waiting.remove(waiter)
                if not waiter.cancel():  # the slot came at the same moment
                    self._leave()
                raise
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> Future[None] | None:
        with self._lock:
            if self._used < self._most:
                self._used += 1
                return None
            if len(self._waiting) >= self._queue:
                raise ModelError(
                    f"model {self._name!r} is busy: {self._most} calls at work (concurrency) and "
                    f"{len(self._waiting)} waiting (queue); ask again later, or raise them",
                    refused="busy",
                )
            waiter: Future[None] = Future()
            self._waiting.append(waiter)
            return waiter

    def _leave(self) -> None:
        """Hand the slot to the one that waits longest, or free it."""
        with self._lock:
            while self._waiting:
                waiter = self._waiting.popleft()
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(None)
                    return
            self._used -= 1
