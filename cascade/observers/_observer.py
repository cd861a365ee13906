"""The protocol by which telemetry, metrics and live views watch the runs of this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from cascade.records import Request, Result, Step

_log = logging.getLogger("cascade.observers")


class Observer:
    """Is told what happens to each run; a subclass overrides the methods it needs.

    Methods are called on the run's event loop, so they must be quick, and safe to call from several threads.
    An exception is logged and does not affect the run.
    """

    def on_run_start(self, run: str, graph: str, request: Request) -> None:
        """A run of `graph` (`name@digest`) starts, or continues after a person has answered."""

    def on_stage_start(self, run: str, stage: str) -> None:
        """A stage of the run starts."""

    def on_stage_end(self, run: str, step: Step) -> None:
        """A stage of the run has decided."""

    def on_run_end(self, result: Result) -> None:
        """The run has a result, which is stored already; it may be waiting for a person, or cancelled."""

    def on_run_error(self, run: str) -> None:
        """The run failed and has no result, for instance because it could not be stored."""


class Observers(Observer):
    """Passes everything on to several observers and logs their exceptions."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def on_run_start(self, run: str, graph: str, request: Request) -> None:
        """See `Observer.on_run_start`."""
        self._tell(lambda observer: observer.on_run_start(run, graph, request))

    def on_stage_start(self, run: str, stage: str) -> None:
        """See `Observer.on_stage_start`."""
        self._tell(lambda observer: observer.on_stage_start(run, stage))

    def on_stage_end(self, run: str, step: Step) -> None:
        """See `Observer.on_stage_end`."""
        self._tell(lambda observer: observer.on_stage_end(run, step))

    def on_run_end(self, result: Result) -> None:
        """See `Observer.on_run_end`."""
        self._tell(lambda observer: observer.on_run_end(result))

    def on_run_error(self, run: str) -> None:
        """See `Observer.on_run_error`."""
        self._tell(lambda observer: observer.on_run_error(run))

    def _tell(self, call: Callable[[Observer], Any]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:  # noqa: BLE001 - no exception of an observer may affect the run
                _log.exception("observer %s failed; the run goes on", type(observer).__name__)
