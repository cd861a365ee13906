"""A background event loop that synchronous callers share, and waiting for tasks despite cancellation."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a thread of its own, which starts on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` and return its result; an interrupt (Ctrl-C) cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield from `items`, which one task of the loop reads; stopping early cancels that task."""
        ready: queue.SimpleQueue[tuple[bool, T | None]] = queue.SimpleQueue()

        async def pump() -> None:
            try:
                async for item in items:
                    ready.put((True, item))
            finally:
                ready.put((False, None))

        future = asyncio.run_coroutine_threadsafe(pump(), self._started())
        try:
            while True:
                more, item = ready.get()
                if not more:
                    break
                yield item  # type: ignore[misc]
            future.result()  # raises what ended it
        finally:
            future.cancel()

    def close(self) -> None:
        """Cancel all tasks, then stop the loop and its thread; a later `run` starts them again."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_wind_up(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                run = self._loop.run_forever
                self._thread = threading.Thread(target=run, name="cascade-loop", daemon=True)
                self._thread.start()
            return self._loop


async def await_uncancelled(task: asyncio.Task[T], *, cancel: bool = False) -> T:
    """Return the result of `task`; if the caller is cancelled meanwhile, wait for the task before raising.

    With `cancel`, cancelling the caller also cancels the task, but only once, so that it can clean up: anyio,
    which the server uses, cancels a waiting task repeatedly and would interrupt the clean-up.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            if cancel and cancelled is None:
                task.cancel(*error.args)
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # mark it as retrieved: nobody will
    raise cancelled


async def _wind_up() -> None:
    """End all other tasks of this loop, and asynchronous generators that are no longer read."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()  # after the tasks, which may still read them
