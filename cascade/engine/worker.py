"""The decode thread: one per process, it owns every context of every local model.

A second live thread that has decoded once slows llama.cpp by 1.4 to 3.4 times, even when idle. So callers
never decode: they submit a job and await its future. A job is a generator that yields between decodes; at a
yield it can be cancelled, and other jobs get their turn. A job that yields a `Ticket` sleeps until that is
done.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from cascade._fork import ForkGate, abandon, forget_after_fork
from cascade.engine.ticket import Stepper, Ticket
from cascade.errors import CascadeError, ModelError

if TYPE_CHECKING:
    from cascade.engine.weights import ModelCache

T = TypeVar("T")
JobSteps = Callable[["ModelCache", float], Generator["Ticket | None", None, T]]

MAX_WAITING = 1024
# llama.cpp's pre-tokenizers may recurse once per character; only pages that are touched use memory.
_STACK_BYTES = 512 * 2**20


class _Job:
    """Work for one lane: `steps(models, seconds in the queue)` runs on the decode thread."""

    def __init__(self, lane: Hashable, max_active: int, steps: JobSteps[Any]) -> None:
        self.lane, self.max_active, self.steps = lane, max_active, steps
        # It stays pending until it is done, so that cancel() works while it runs; checked between steps.
        self.future: Future[Any] = Future()
        self.submitted = time.monotonic()
        self.running: Generator[Ticket | None, None, Any] | None = None
        self.ticket: Ticket | None = None


class DecodeWorker:
    """A thread with one queue per lane; a lane runs a limited number of jobs, the others wait in order.

    The lane of a job is its model file. Active jobs take turns step by step. Those that wait for tickets of
    one stepper are decoded together, and steppers take turns too.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, deque[_Job]] = {}
        self._active: Counter[Hashable] = Counter()
        self._ready: dict[_Job, None] = {}  # in order of arrival
        self._parked: dict[Ticket, _Job] = {}
        self._steppers: dict[Stepper, None] = {}
        self._cancelled: deque[_Job] = deque()
        self._deferred: dict[Hashable, Callable[[], object]] = {}
        self._stop = False
        self._models: ModelCache | None = None
        self._thread = threading.Thread(target=self._run, name="cascade-decode", daemon=True)

    @property
    def started(self) -> bool:
        """Whether its thread has been started."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Start the thread; it stops when the process exits."""
        old_size = threading.stack_size(_STACK_BYTES)
        try:
            self._thread.start()
        finally:
            threading.stack_size(old_size)
        atexit.register(self.stop)

    def submit(self, lane: Hashable, steps: JobSteps[T], *, max_active: int = 1) -> Future[T]:
        """Queue a job and return its future; cancelling the future drops the job before its next step.

        Args:
            lane: jobs of one lane start in order.
            steps: the job.
            max_active: start it once fewer jobs than this are active in its lane.

        Raises:
            ModelError: too many jobs are waiting.
        """
        job = _Job(lane, max_active, steps)
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
        """Make `call` before the next decode, once for all calls that are deferred under `key` until then.

        This is for jobs that wake another thread: each single wake-up would hand the interpreter to that
        thread and delay the decode. Outside the decode thread, the call is made at once.
        """
        if threading.current_thread() is self._thread:
            self._deferred[key] = call
        else:
            call()

    def start_over(self) -> DecodeWorker:
        """Return a worker for a forked child: with the same weights, but no context, thread or job."""
        fresh = DecodeWorker()
        fresh._models = self._models
        if fresh._models is not None:
            fresh._models.start_over()
        abandon(self)
        return fresh

    def stop(self) -> None:
        """Finish the step in progress, cancel all jobs and free all models."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _cancel(self, job: _Job) -> None:
        """Tell the decode thread to drop a cancelled job; called in the thread that cancelled it."""
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
            with _gate.work():
                self._turn(cancelled)
        self._shut_down()

    def _turn(self, cancelled: list[_Job]) -> None:
        """Give every job and every stepper its turn."""
        for job in cancelled:
            self._drop(job)
        for job in list(self._ready):
            self._step(job)
        while self._deferred:
            self._deferred.pop(next(iter(self._deferred)))()
        for stepper in list(self._steppers):
            self._advance(stepper)

    def _has_work(self) -> bool:
        return bool(self._stop or self._ready or self._steppers or self._cancelled or any(self._startable()))

    def _startable(self) -> Iterator[Hashable]:
        for lane, queue in self._waiting.items():
            if self._active[lane] < queue[0].max_active:
                yield lane

    def _admit(self) -> None:
        """Activate waiting jobs, as many as their lanes allow."""
        while lanes := list(self._startable()):
            for lane in lanes:
                job = self._waiting[lane].popleft()
                if not self._waiting[lane]:
                    del self._waiting[lane]
                self._active[lane] += 1
                self._ready[job] = None

    def _step(self, job: _Job) -> None:
        """Run a job up to its next yield; park it if it yields a ticket."""
        if job.future.cancelled():
            self._drop(job)
            return
        try:
            if job.running is None:
                job.running = job.steps(self._model_cache(), time.monotonic() - job.submitted)
            ticket = next(job.running)
        except StopIteration as done:
            self._end(job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(done.value)
        except CascadeError as error:
            self._fail(job, error)
        except Exception as error:  # noqa: BLE001  # becomes the caller's failed call; the thread must survive
            self._fail(job, _unexpected(error))
        else:
            if ticket is not None and not ticket.done:
                self._park(job, ticket)

    def _park(self, job: _Job, ticket: Ticket) -> None:
        del self._ready[job]
        self._parked[ticket] = job
        self._steppers[ticket.stepper] = None
        job.ticket = ticket
        if job.future.cancelled():  # after the check above, before it had a ticket
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

    def _model_cache(self) -> ModelCache:
        if self._models is None:
            try:
                from cascade.engine.weights import ModelCache
            # Raised by the binding if its library is missing or was built for another machine.
            except (ImportError, OSError, RuntimeError) as error:
                raise ModelError(f"llama.cpp cannot load: {error}; reinstall llama-cpp-python") from error
            self._models = ModelCache()
        return self._models

    def _fail(self, job: _Job, error: CascadeError) -> None:
        self._end(job)
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)

    def _drop(self, job: _Job) -> None:
        """Remove a cancelled job, whether it waits, is ready or is parked."""
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
        self._active[job.lane] -= 1
        if not self._active[job.lane]:
            del self._active[job.lane]
        if job.running:
            job.running.close()

    def _shut_down(self) -> None:
        jobs = [
            *self._ready,
            *self._parked.values(),
            *(job for queue in self._waiting.values() for job in queue),
        ]
        for job in jobs:
            job.future.cancel()
            if job.running:
                job.running.close()
        if self._models is not None:
            self._models.close()


def _unexpected(error: Exception) -> ModelError:
    failure = ModelError(f"the engine failed with {type(error).__name__}: {error}; report this")
    failure.__cause__ = error
    return failure


class _Process:
    """The decode worker of this process."""

    def __init__(self) -> None:
        self.worker: DecodeWorker | None = None
        self.lock = threading.Lock()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        self.lock = threading.Lock()
        if self.worker is None:
            return
        if _gate.clean:
            self.worker = self.worker.start_over()
            return
        abandon(self.worker)
        self.worker = None

    def running(self) -> DecodeWorker:
        if not _gate.clean:
            raise ModelError(
                f"process {os.getpid()} was forked while its parent decoded; load the cascade after the "
                "fork, or fork while no run is at work"
            )
        if self.worker is None or not self.worker.started:
            with self.lock:
                if self.worker is None:
                    self.worker = DecodeWorker()
                if not self.worker.started:
                    self.worker.start()
        return self.worker


_gate = ForkGate(seconds=10.0)  # a turn may load a file, or decode a long prompt
_process = _Process()


def decode_worker() -> DecodeWorker:
    """Return this process's worker; the first call starts its thread.

    Raises:
        ModelError: this process was forked in the middle of a decode.
    """
    return _process.running()
