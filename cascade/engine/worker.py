"""The decode thread: one per process, it owns every context of every local model.

A second live thread that has decoded once slows llama.cpp by 1.4 to 3.4 times, even when idle, so
callers never decode themselves: they hand in a job and await its future. A job is a generator that
yields between decodes; there it can be cancelled, and jobs of other files get their turn.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from cascade.errors import CascadeError, ModelError

if TYPE_CHECKING:
    from cascade.engine.weights import Library

T = TypeVar("T")
Steps = Callable[["Library", float], Generator[None, None, T]]

MAX_WAITING = 1024
# llama.cpp's pre-tokenizers may recurse per character; only pages that are touched use memory.
_STACK_BYTES = 512 * 2**20


class _Job:
    """Work for one lane: `steps(library, seconds in the queue)` runs on the decode thread."""

    def __init__(self, lane: Hashable, steps: Steps[Any]) -> None:
        self.lane, self.steps = lane, steps
        # Left pending until it is done, so that cancel() works while it runs; checked between steps.
        self.future: Future[Any] = Future()
        self.submitted = time.monotonic()
        self.running: Generator[None, None, Any] | None = None


class Worker:
    """A thread with one queue per lane. Jobs of a lane run one after another; lanes take turns step by step.

    The lane of a job is its model file: that is where contexts are shared.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, deque[_Job]] = {}
        self._active: dict[Hashable, _Job] = {}
        self._stop = False
        self._library: Library | None = None
        self._thread = threading.Thread(target=self._run, name="cascade-decode", daemon=True)

    def start(self) -> None:
        """Start the thread; it stops when the process exits."""
        before = threading.stack_size(_STACK_BYTES)
        try:
            self._thread.start()
        finally:
            threading.stack_size(before)
        atexit.register(self.stop)

    def submit(self, lane: Hashable, steps: Steps[T]) -> Future[T]:
        """Queue a job and return its future; cancelling that drops the job before its next step.

        Raises:
            ModelError: too many jobs are waiting, or this process is a fork of the one that loaded llama.cpp.
        """
        self.check_process()
        job = _Job(lane, steps)
        with self._changed:
            if self._stop:
                raise ModelError("the engine has stopped because the process is exiting")
            waiting = sum(len(queue) for queue in self._waiting.values())
            if waiting >= MAX_WAITING:
                raise ModelError(
                    f"{waiting} calls are waiting already; lower the number of concurrent requests"
                )
            self._waiting.setdefault(lane, deque()).append(job)
            self._changed.notify()
        return job.future

    def check_process(self) -> None:
        """Raise ModelError in a forked child: the thread did not come along, and decoding there hangs."""
        if os.getpid() != self._pid:
            raise ModelError(
                f"process {os.getpid()} is a fork of {self._pid}, which runs llama.cpp; "
                "start worker processes with the 'spawn' method"
            )

    def stop(self) -> None:
        """Finish the step in flight, cancel all jobs and free all models."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stop or self._waiting or self._active)
                if self._stop:
                    break
                self._admit()
            for job in list(self._active.values()):
                self._step(job)
        for job in [*self._active.values(), *(job for queue in self._waiting.values() for job in queue)]:
            job.future.cancel()
            if job.running:
                job.running.close()
        if self._library is not None:
            self._library.close()

    def _admit(self) -> None:
        """Make the first waiting job of every free lane active."""
        for lane in [lane for lane in self._waiting if lane not in self._active]:
            queue = self._waiting[lane]
            self._active[lane] = queue.popleft()
            if not queue:
                del self._waiting[lane]

    def _step(self, job: _Job) -> None:
        if job.future.cancelled():
            self._end(job)
            return
        try:
            if job.running is None:
                job.running = job.steps(self._loaded(), time.monotonic() - job.submitted)
            next(job.running)
        except StopIteration as done:
            self._end(job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(done.value)
        except CascadeError as error:
            self._fail(job, error)
        except Exception as error:  # noqa: BLE001  # becomes the caller's failed call; the thread must live on
            failure = ModelError(f"the engine failed with {type(error).__name__}: {error}; report this")
            failure.__cause__ = error
            self._fail(job, failure)

    def _loaded(self) -> Library:
        if self._library is None:
            try:
                from cascade.engine.weights import Library
            # What the binding raises where its library is missing or was built for another machine.
            except (ImportError, OSError, RuntimeError) as error:
                raise ModelError(f"llama.cpp cannot load: {error}; reinstall llama-cpp-python") from error
            self._library = Library()
        return self._library

    def _fail(self, job: _Job, error: CascadeError) -> None:
        self._end(job)
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)

    def _end(self, job: _Job) -> None:
        del self._active[job.lane]
        if job.running:
            job.running.close()


_worker: Worker | None = None
_lock = threading.Lock()


def worker() -> Worker:
    """Return this process's worker; the first call starts its thread.

    Raises:
        ModelError: this process is a fork of one that runs llama.cpp.
    """
    global _worker  # noqa: PLW0603  # one decode thread per process is the point
    if _worker is None:
        with _lock:
            if _worker is None:
                starting = Worker()
                starting.start()
                _worker = starting
    _worker.check_process()
    return _worker
