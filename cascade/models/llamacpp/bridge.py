"""From the decode thread to an event loop, with one wake-up for all results of a decode."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from cascade.engine import decode_worker

T = TypeVar("T")
Calls = deque[tuple[Callable[..., object], tuple[Any, ...]]]
_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, Calls] = WeakKeyDictionary()


class LoopBridge:
    """Calls into the running event loop, in the order in which they are posted."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue = _queues.setdefault(self._loop, deque())

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        """Schedule a call on the loop; called on the decode thread."""
        self._queue.append((call, arguments))
        decode_worker().defer(self._loop, self._send)

    def to(self, call: Callable[[T], object]) -> Callable[[T], object]:
        """Return a function that posts `call` from the decode thread."""
        return lambda value: self.post(call, value)

    def future(self, source: Future[T]) -> asyncio.Future[T]:
        """Return a future of the loop that ends as `source` does; cancelling it cancels `source`."""
        future: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(lambda own: source.cancel() if own.cancelled() else None)
        source.add_done_callback(lambda done: self.post(_copy, done, future))
        return future

    def _send(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, nobody listens
            self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        while self._queue:
            call, arguments = self._queue.popleft()
            self._loop.call_soon(call, *arguments)  # an exception in one does not stop the others


def _copy(source: Future[T], target: asyncio.Future[T]) -> None:
    if target.done():
        return
    if source.cancelled():
        target.cancel()
    elif (error := source.exception()) is not None:
        target.set_exception(error)
    else:
        target.set_result(source.result())
