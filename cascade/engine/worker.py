"""The decode thread: one per process, it owns every context of every local model.

A second live thread that has decoded once slows llama.cpp by 1.4 to 3.4 times, even when idle, so
callers never decode themselves: they hand in a job and await its future. A job is a generator that
yields between decodes; there it can be cancelled, and other jobs get their turn. A job that yields a
`Ticket` sleeps until that is done.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cascade.errors import CascadeError, ModelError

if TYPE_CHECKING:
    from cascade.engine.weights import ModelCache


class Stepper(Protocol):
    """What decodes for many jobs at once (`engine.scheduler`)."""

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        ...

    def step(self) -> Sequence[Ticket]:
        """Decode once; return the tickets that are done."""
        ...

    def fail(self, error: CascadeError) -> Sequence[Ticket]:
        """Give everything up; return all tickets."""
        ...

    def interrupt(self) -> None:
        """End the decode in flight if it is in vain; called from any thread."""
        ...


class Ticket:
    """What a job waits for, given out by a stepper: the job yields it and goes on when it is done."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.done = self.abandoned = False

    def abandon(self) -> None:
        """Say from any thread that nobody waits for it any more."""
        self.abandoned = True
        self.stepper.interrupt()


T = TypeVar("T")
Steps = Callable[["ModelCache", float], Generator[Ticket | None, None, T]]
MAX_WAITING = 1024
# llama.cpp's pre-tokenizers may recurse per character; only pages that are touched use memory.
_STACK_BYTES = 512 * 2**20


class _Job:
    """Work for one lane: `steps(library, seconds in the queue)` runs on the decode thread."""

    def __init__(self, lane: Hashable, width: int, steps: Steps[Any]) -> None:
        self.lane, self.width, self.steps = lane, width, steps
        # Left pending until it is done, so that cancel() works while it runs; checked between steps.
        self.future: Future[Any] = Future()
        self.submitted = time.monotonic()
        self.running: Generator[Ticket | None, None, Any] | None = None
        self.ticket: Ticket | None = None


class Worker:
    """A thread with one queue per lane. At most `width` jobs of a lane are at work, the others wait in order.

    The lane of a job is its model file. Jobs at work take turns step by step; those that wait for a ticket
    are decoded together by its stepper, and steppers take turns too.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, deque[_Job]] = {}
        self._at_work: Counter[Hashable] = Counter()
        self._ready: dict[_Job, None] = {}  # in the order in which they came
        self._parked: dict[Ticket, _Job] = {}
        self._steppers: dict[Stepper, None] = {}
        self._cancelled: deque[_Job] = deque()
        self._deferred: dict[Hashable, Callable[[], object]] = {}
        self._stop = False
        self._library: ModelCache | None = None
        self._thread = threading.Thread(target=self._run, name="cascade-decode", daemon=True)

    def start(self) -> None:
        """Start the thread; it stops when the process exits."""
        before = threading.stack_size(_STACK_BYTES)
        try:
            self._thread.start()
        finally:
            threading.stack_size(before)
        atexit.register(self.stop)

    def submit(self, lane: Hashable, steps: Steps[T], *, width: int = 1) -> Future[T]:
        """Queue a job and return its future; cancelling that drops the job before its next step.

        Args:
            lane: jobs of one lane start in order.
            steps: the job.
            width: start it when fewer jobs than this are at work in its lane.

        Raises:
            ModelError: too many jobs are waiting, or this process is a fork of the one that loaded llama.cpp.
        """
        self.check_process()
        job = _Job(lane, width, steps)
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
        job.future.add_done_callback(lambda future: self._cancel(job) if future.cancelled() else None)
        return job.future

    def defer(self, key: Hashable, call: Callable[[], object]) -> None:
        """Have `call` run before the next decode, once for all that `defer` it under `key` until then.

        For jobs that wake another thread: each wake-up by itself would hand that thread the interpreter,
        and the decode would wait for it. Called on the decode thread; elsewhere it runs at once.
        """
        if threading.current_thread() is self._thread:
            self._deferred[key] = call
        else:
            call()

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

    def _cancel(self, job: _Job) -> None:
        """Have the thread drop a job that was cancelled, in whichever thread that happened."""
        with self._changed:
            if self._stop:
                return
            self._cancelled.append(job)
            self._changed.notify()
        ticket = job.ticket
        if ticket is not None:
            ticket.abandon()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._stop:
                    break
                cancelled = list(self._cancelled)
                self._cancelled.clear()
                self._admit()
            for job in cancelled:
                self._drop(job)
            for job in list(self._ready):
                self._step(job)
            while self._deferred:
                self._deferred.pop(next(iter(self._deferred)))()
            for stepper in list(self._steppers):
                self._advance(stepper)
        self._leave()

    def _has_work(self) -> bool:
        return bool(self._stop or self._ready or self._steppers or self._cancelled or any(self._startable()))

    def _startable(self) -> Iterator[Hashable]:
        for lane, queue in self._waiting.items():
            if self._at_work[lane] < queue[0].width:
                yield lane

    def _admit(self) -> None:
        """Put waiting jobs to work, as many as their lanes have room for."""
        while lanes := list(self._startable()):
            for lane in lanes:
                job = self._waiting[lane].popleft()
                if not self._waiting[lane]:
                    del self._waiting[lane]
                self._at_work[lane] += 1
                self._ready[job] = None

    def _step(self, job: _Job) -> None:
        """Run a job up to its next yield; park it where that is a ticket."""
        if job.future.cancelled():
            self._drop(job)
            return
        try:
            if job.running is None:
                job.running = job.steps(self._loaded(), time.monotonic() - job.submitted)
            ticket = next(job.running)
        except StopIteration as done:
            self._end(job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(done.value)
        except CascadeError as error:
            self._fail(job, error)
        except Exception as error:  # noqa: BLE001  # becomes the caller's failed call; the thread must live on
            self._fail(job, _unexpected(error))
        else:
            if ticket is not None and not ticket.done:
                self._park(job, ticket)

    def _park(self, job: _Job, ticket: Ticket) -> None:
        del self._ready[job]
        self._parked[ticket] = job
        self._steppers[ticket.stepper] = None
        job.ticket = ticket
        if job.future.cancelled():  # just before it had a ticket
            ticket.abandon()

    def _advance(self, stepper: Stepper) -> None:
        try:
            done = stepper.step()
        except Exception as error:  # noqa: BLE001  # as above
            done = stepper.fail(_unexpected(error))
        for ticket in done:
            job = self._parked.pop(ticket, None)
            if job is not None:
                job.ticket = None
                self._ready[job] = None
        if not stepper.busy:
            self._steppers.pop(stepper, None)

    def _loaded(self) -> ModelCache:
        if self._library is None:
            try:
                from cascade.engine.weights import ModelCache
            # What the binding raises where its library is missing or was built for another machine.
            except (ImportError, OSError, RuntimeError) as error:
                raise ModelError(f"llama.cpp cannot load: {error}; reinstall llama-cpp-python") from error
            self._library = ModelCache()
        return self._library

    def _fail(self, job: _Job, error: CascadeError) -> None:
        self._end(job)
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)

    def _drop(self, job: _Job) -> None:
        """Forget a cancelled job, wherever it is."""
        queue = self._waiting.get(job.lane)
        if queue is not None and job in queue:
            with self._changed:
                queue.remove(job)
                if not queue:
                    del self._waiting[job.lane]
        elif job in self._ready or job.ticket is not None:
            self._end(job)

    def _end(self, job: _Job) -> None:
        self._ready.pop(job, None)
        if job.ticket is not None:
            self._parked.pop(job.ticket, None)
            job.ticket = None
        self._at_work[job.lane] -= 1
        if not self._at_work[job.lane]:
            del self._at_work[job.lane]
        if job.running:
            job.running.close()

    def _leave(self) -> None:
        jobs = [
            *self._ready,
            *self._parked.values(),
            *(job for queue in self._waiting.values() for job in queue),
        ]
        for job in jobs:
            job.future.cancel()
            if job.running:
                job.running.close()
        if self._library is not None:
            self._library.close()


def _unexpected(error: Exception) -> ModelError:
    failure = ModelError(f"the engine failed with {type(error).__name__}: {error}; report this")
    failure.__cause__ = error
    return failure


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
