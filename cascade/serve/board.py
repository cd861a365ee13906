"""The runs at work in this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cascade._fork import forget_after_fork
from cascade.observers import Observer
from cascade.records import Request, Result, Step


@dataclass
class ActiveRun:
    """A run at work: the steps so far, and the stages being asked (two if one is hedged)."""

    run: str
    graph: str
    request: Request
    began: float = field(default_factory=time.monotonic)
    trace: tuple[Step, ...] = ()
    stages: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return time.monotonic() - self.began


class Board(Observer):
    """The runs at work in this process. Runs may be on any thread, listeners on any event loop."""

    def __init__(self) -> None:
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        self._lock = threading.Lock()
        self._runs: dict[str, ActiveRun] = {}
        self._listeners: set[Callable[[], None]] = set()

    def active(self) -> list[ActiveRun]:
        """Return the runs at work, the oldest first."""
        with self._lock:
            return list(self._runs.values())

    def find(self, run: str) -> ActiveRun | None:
        """Return a run at work, or None."""
        with self._lock:
            return self._runs.get(run)

    def on_run_start(self, run: str, graph: str, request: Request) -> None:
        """See `Observer.on_run_start`."""
        self._change(lambda: self._runs.update({run: ActiveRun(run, graph, request)}))

    def on_stage_start(self, run: str, stage: str) -> None:
        """See `Observer.on_stage_start`."""
        self._change(lambda: self._update(run, stage=stage))

    def on_stage_end(self, run: str, step: Step) -> None:
        """See `Observer.on_stage_end`."""
        self._change(lambda: self._update(run, step=step))

    def on_run_end(self, result: Result) -> None:
        """See `Observer.on_run_end`."""
        self._remove(result.run)

    def on_run_error(self, run: str) -> None:
        """See `Observer.on_run_error`."""
        self._remove(run)

    @contextmanager
    def changes(self) -> Iterator[asyncio.Event]:
        """Yield an event of the running loop that is set on every change."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

        with self._lock:
            self._listeners.add(notify)
        try:
            yield event
        finally:
            with self._lock:
                self._listeners.discard(notify)

    def _update(self, run: str, *, stage: str | None = None, step: Step | None = None) -> None:
        # Records are replaced, not changed: a page may be reading the old one.
        if (old := self._runs.get(run)) is None:
            return
        if stage is not None:
            self._runs[run] = replace(old, stages=(*old.stages, stage))
        if step is not None:
            stages = tuple(name for name in old.stages if name != step.stage)
            self._runs[run] = replace(old, trace=(*old.trace, step), stages=stages)

    def _remove(self, run: str) -> None:
        self._change(lambda: self._runs.pop(run, None))

    def _change(self, change: Callable[[], Any]) -> None:
        with self._lock:
            change()
            listeners = list(self._listeners)
        for notify in listeners:
            notify()
