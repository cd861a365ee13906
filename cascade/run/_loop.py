"""A background event loop that synchronous callers share, and waiting for tasks despite cancellation."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from cascade._fork import abandon, forget_after_fork

T = TypeVar("T")

WIND_UP_SECONDS = 30.0  # for cancelled tasks to end
_log = logging.getLogger("cascade.run")


class BackgroundLoop:
    """An event loop in a thread of its own, which starts on first use.

    Whatever a coroutine raises reaches its caller, also SystemExit and KeyboardInterrupt, and the loop goes
    on. A forked child starts a loop of its own.
    """

    def __init__(self) -> None:
        self._running: _LoopThread | None = None
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        if self._running is not None:  # else its tasks would be ended in the child, too
            abandon(self._running)
        self._lock = threading.Lock()
        self._running = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` and return its result; an interrupt (Ctrl-C) cancels it.

        Raises:
            RuntimeError: the caller runs on this loop, which would wait for itself.
        """
        future = self._submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield from `items`, which one task of the loop reads; stopping early cancels that task."""
        ready: queue.SimpleQueue[tuple[bool, T | None]] = queue.SimpleQueue()

        async def pump() -> None:
            async for item in items:
                ready.put((True, item))

        future = self._submit(pump())
        # Not at the end of `pump`, which never starts if the loop closes first.
        future.add_done_callback(lambda _: ready.put((False, None)))
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
            if self._running is not None:
                self._running.refuse_itself()
            running, self._running = self._running, None
        if running is not None and running.is_alive():
            running.close()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            with self._lock:  # else `close` could stop the loop in between, and nobody would run it
                if self._running is None or not self._running.is_usable():
                    self._running = _LoopThread()
                    self._running.start()
                self._running.refuse_itself()
                return self._running.submit(coroutine)
        except BaseException:
            coroutine.close()
            raise


class _LoopThread(threading.Thread):
    """Runs an event loop until `close`."""

    def __init__(self) -> None:
        super().__init__(name="cascade-loop", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._closing = threading.Event()
        self._awaited: set[Future[Any]] = set()

    def run(self) -> None:
        while not self._closing.is_set():
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):  # a task's: its caller has it already
                continue
            except BaseException as error:  # noqa: BLE001  # the loop itself is broken; nobody may wait for it
                self._closing.set()  # first: whoever is told may ask again at once, and needs a new loop
                for future in list(self._awaited):
                    if not future.done():
                        future.set_exception(error)
                return

    def is_usable(self) -> bool:
        return self.is_alive() and not self._closing.is_set()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._awaited.add(future)
        future.add_done_callback(self._awaited.discard)
        return future

    def refuse_itself(self) -> None:
        if threading.current_thread() is self:
            raise RuntimeError(
                "a synchronous method was called on the cascade's own event loop, which would wait for "
                "itself for ever; await the asynchronous one there, `ainvoke` for instance"
            )

    def close(self) -> None:
        self.submit(_wind_up()).result()
        self._closing.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join()
        self._loop.close()


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
    if others:
        ended, stuck = await asyncio.wait(others, timeout=WIND_UP_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # mark it as retrieved: nobody will
        for task in stuck:
            _log.warning("%s ignored its cancellation for %g s and is left behind", task, WIND_UP_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()  # after the tasks, which may still read them
