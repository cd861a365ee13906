"""Manages the worker processes of isolated models: one per file, restarted on use, none left behind."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cascade._fork import abandon, forget_after_fork
from cascade.errors import ConfigError, ModelError
from cascade.formats.gguf_parts import file_bytes
from cascade.models.base import Prompt, Reply
from cascade.models.llamacpp.children import Child, ChildError, Refused, WorkerModel

T = TypeVar("T")

FIRST_DELAY = 0.5  # seconds before the second restart in a row; each further one doubles it
MAX_DELAY = 10.0
# A worker that hangs is told from one that is loading: a slow disk reads this many bytes in a second.
PATIENCE = 30.0
_LOADED_PER_SECOND = 50 * 2**20


class WorkerKey(NamedTuple):
    """What a worker process is for: a file, and the most address space it may take, in MiB."""

    path: Path
    memory_mb: int | None


class WorkerProcess:
    """The worker process of one key: started by the first call, and again after it died."""

    def __init__(self, key: WorkerKey) -> None:
        self._key = key
        self._child: Child | None = None
        self._starting: asyncio.Task[None] | None = None
        self._starts = 0
        self._failures = 0  # in a row
        self._not_before = 0.0
        self.users: set[int] = set()

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return self._child.process.pid if self._child is not None and not self._child.ended.done() else None

    async def ask(
        self, model: WorkerModel, prompt: Prompt, on_piece: Callable[[str], object] | None, deadline: float
    ) -> tuple[Reply, int]:
        """Return the reply of `model`, and how often the process has been restarted.

        Raises:
            ChildError: the process died, hangs, or cannot start before `deadline` (monotonic seconds).
            Refused: the model's own error.
        """
        child = await self._living(deadline)
        try:
            reply = await child.ask(model, prompt, on_piece, deadline)
        except Refused:
            self._failures = 0  # a process that refuses is alive
            raise
        self._failures = 0
        return reply, self._starts - 1

    async def release(self, number: int) -> None:
        """Free model `number`; the last user's release ends the process."""
        self.users.discard(number)
        if self.users and self._child is not None:
            await self._child.close_model(number)
        elif not self.users:
            await self.stop()

    async def stop(self) -> None:
        """End the process, also one that is just starting."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        if self._child is not None:
            await self._child.stop()
            self._child = None

    def kill(self) -> asyncio.Task[None] | None:
        """End the process at once; return what is done when it is gone."""
        if self._child is None:
            return None
        self._child.stopping = True
        self._child.process.kill("was stopped because this process exits")
        return self._child.ended

    async def _living(self, deadline: float) -> Child:
        while True:
            child = self._child
            if self._starting is not None or child is None or child.ended.done():
                await self._started(deadline)
            elif not child.settled.is_set():  # it may hang: wait until it moves or is killed
                await child.settled.wait()
            else:
                return child

    async def _started(self, deadline: float) -> None:
        """Return once the process takes calls; everybody who waits shares one start."""
        wait = self._not_before - time.monotonic()
        if self._not_before > deadline:
            text = f"its process has failed {self._failures} times in a row and starts again in {wait:.1f} s"
            raise ChildError(f"{text}; this call has less time than that", sent=False)
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(max(0.0, wait)))
            self._starting.add_done_callback(self._start_done)
        starting = self._starting
        await asyncio.wait({starting})
        if starting.cancelled():
            raise ChildError("it was closed while its process started", sent=False)
        starting.result()

    def _start_done(self, starting: asyncio.Task[None]) -> None:
        self._starting = None
        if not starting.cancelled():
            starting.exception()  # retrieved, so that asyncio does not warn if nobody waits

    async def _start(self, wait: float) -> None:
        await asyncio.sleep(wait)
        self._starts += 1
        try:
            self._child = child = Child(self._key.memory_mb, self._patience())
        except OSError as error:
            self._failed()
            raise ChildError(
                f"its process cannot start: {error}; free memory or processes", sent=False
            ) from error
        child.ended.add_done_callback(lambda _: None if child.stopping else self._failed())
        await child.ready()

    def _failed(self) -> None:
        """Restart at once after the first failure, and later after each further one in a row."""
        self._failures += 1
        delay = 0.0 if self._failures == 1 else FIRST_DELAY * 2 ** min(self._failures - 2, 10)
        self._not_before = time.monotonic() + min(delay, MAX_DELAY)

    def _patience(self) -> float:
        try:
            return PATIENCE + file_bytes(self._key.path) / _LOADED_PER_SECOND
        except (OSError, ConfigError):  # the file is gone; loading it will report that
            return PATIENCE


class Supervisor:
    """All worker processes of this process, on an event loop in a thread of its own."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._workers: dict[WorkerKey, WorkerProcess] = {}
        self._running: set[Future[Any]] = set()
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cascade-isolated", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    async def ask(
        self,
        key: WorkerKey,
        model: WorkerModel,
        prompt: Prompt,
        on_piece: Callable[[str], object] | None,
        deadline: float,
    ) -> tuple[Reply, int]:
        """Like `WorkerProcess.ask`, from any event loop; `on_piece` is called on the supervisor's thread."""

        async def ask() -> tuple[Reply, int]:
            worker = self._workers.setdefault(key, WorkerProcess(key))
            worker.users.add(model.number)
            return await worker.ask(model, prompt, on_piece, deadline)

        return await self._run(ask)

    async def release(self, key: WorkerKey, number: int) -> None:
        """Free model `number`; the process ends with its last model."""

        async def release() -> None:
            worker = self._workers.get(key)
            if worker is not None and worker.users == {number}:
                del self._workers[key]
            if worker is not None:
                await worker.release(number)

        await self._run(release)

    def processes(self) -> dict[WorkerKey, int]:
        """Return the process ids of the workers that live now."""
        return {key: worker.pid for key, worker in list(self._workers.items()) if worker.pid is not None}

    def close(self) -> None:
        """Cancel all calls, kill all workers and end the thread, when this process exits."""
        if os.getpid() != self._pid:  # a forked copy: the workers are not its own
            return
        for future in list(self._running):
            future.cancel()
        asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self.check_running()
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(future)

    def check_running(self) -> None:
        """Raise ModelError while the process exits."""
        if self._loop.is_closed():
            raise ModelError("isolated models have stopped because the process is exiting")

    async def _wind_up(self) -> None:
        ends = [worker.kill() for worker in self._workers.values()]
        await asyncio.gather(*(end for end in ends if end is not None))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class _Process:
    """The supervisor of this process; a forked child has its own, and leaves its parent's workers alone."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self.lock = threading.Lock()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        if self.supervisor is not None:
            abandon(self.supervisor)
        self.supervisor = None
        self.lock = threading.Lock()


_process = _Process()


def supervisor() -> Supervisor:
    """Return this process's supervisor; the first call starts its thread.

    Raises:
        ModelError: this process exits.
    """
    with _process.lock:
        if _process.supervisor is None:
            _process.supervisor = Supervisor()
    _process.supervisor.check_running()
    return _process.supervisor
