"""What stands between a stage and one endpoint of a model: its circuit breaker, and its bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from cascade._fork import forget_after_fork
from cascade.errors import ModelError
from cascade.graph.breaker import Breaker, Permit
from cascade.spec.kinds import ModelSettings


class _Slots:
    """Lets `max_calls` calls work at once and `queue` more wait; first come, first served.

    asyncio's own semaphore belongs to one event loop; a cascade serves several.
    """

    def __init__(self, name: str, max_calls: int, queue: int) -> None:
        self._name = name
        self._max_calls = max_calls
        self._queue = queue
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        self._lock = threading.Lock()
        self._used = 0
        self._waiting: deque[Future[None]] = deque()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one slot.

        Raises:
            ModelError: the queue is full.
        """
        waiter = self._take()
        if waiter is not None:
            try:
                await asyncio.wrap_future(waiter)
            except BaseException:
                with self._lock:
                    if waiter in self._waiting:
                        self._waiting.remove(waiter)
                if not waiter.cancel():  # the slot came at the same moment
                    self._free()
                raise
        try:
            yield
        finally:
            self._free()

    def _take(self) -> Future[None] | None:
        with self._lock:
            if self._used < self._max_calls:
                self._used += 1
                return None
            if len(self._waiting) >= self._queue:
                raise ModelError(
                    f"model {self._name!r} is busy: {self._max_calls} calls at work (concurrency) and "
                    f"{len(self._waiting)} waiting (queue); ask again later, or raise them",
                    refused="busy",
                )
            waiter: Future[None] = Future()
            self._waiting.append(waiter)
            return waiter

    def _free(self) -> None:
        """Hand the slot to the longest waiter, or free it."""
        with self._lock:
            while self._waiting:
                waiter = self._waiting.popleft()
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(None)
                    return
            self._used -= 1


class EndpointGuard:
    """Lets calls through while the model works and has room; shared by every run of a cascade.

    Args:
        name: the model's name, for messages.
        config: its settings; None lets every call through.
    """

    def __init__(self, name: str, config: ModelSettings | None = None) -> None:
        self._name = name
        self._breaker = Breaker(config.breaker) if config is not None and config.breaker else None
        self._slots: _Slots | None = None
        if config is not None and config.concurrency is not None:
            self._slots = _Slots(name, config.concurrency, config.queue)

    def refusal(self) -> str | None:
        """Return why no call would be let through now, or None."""
        why = self._breaker.refusal() if self._breaker is not None else None
        return None if why is None else self._broken(why)

    def acquire(self) -> Permit | None:
        """Return a permit for one call, to be given back with `release`; None without a breaker.

        Raises:
            ModelError: the breaker is open.
        """
        permit = self._breaker.acquire() if self._breaker is not None else None
        if isinstance(permit, str):
            raise ModelError(self._broken(permit), healthy=True, refused="breaker_open")
        return permit

    def release(self, permit: Permit | None, worked: bool | None) -> None:
        """Report how a call ended: it worked, it failed, or (None) it says nothing about the model."""
        if self._breaker is not None and permit is not None:
            self._breaker.release(permit, worked)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Hold one of the model's `concurrency` slots; first come, first served.

        Raises:
            ModelError: the queue is full.
        """
        return nullcontext() if self._slots is None else self._slots.one()

    def _broken(self, why: str) -> str:
        return f"model {self._name!r} is left alone: its circuit breaker is {why}"


NO_GUARD = EndpointGuard("")
