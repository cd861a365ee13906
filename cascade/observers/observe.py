"""Watching runs from inside the process: one protocol for telemetry, metrics and live views."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from cascade.records import Request, Result, Step

_log = logging.getLogger("cascade.observers.observe")


class Observer:
    """Is told what happens to each run; a subclass overrides what it cares about.

    Methods are called on the event loop of the run, so they must be quick and safe to call from several
    threads. What they raise is logged and changes no run.
    """

    def began(self, run: str, graph: str, request: Request) -> None:
        """A run of `graph` (`name@digest`) starts, or goes on after a person has answered."""

    def entered(self, run: str, stage: str) -> None:
        """A stage of the run starts."""

    def left(self, run: str, step: Step) -> None:
        """A stage of the run has decided."""

    def ended(self, result: Result) -> None:
        """The run has a result, stored if it is kept; it may wait for a person, or be cancelled."""

    def dropped(self, run: str) -> None:
        """The run failed (its result could not be stored, say), and has no result."""


class Observers(Observer):
    """Passes everything on to several observers, and keeps their failures away from the run."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def began(self, run: str, graph: str, request: Request) -> None:
        """See `Observer.began`."""
        self._tell(lambda observer: observer.began(run, graph, request))

    def entered(self, run: str, stage: str) -> None:
        """See `Observer.entered`."""
        self._tell(lambda observer: observer.entered(run, stage))

    def left(self, run: str, step: Step) -> None:
        """See `Observer.left`."""
        self._tell(lambda observer: observer.left(run, step))

    def ended(self, result: Result) -> None:
        """See `Observer.ended`."""
        self._tell(lambda observer: observer.ended(result))

    def dropped(self, run: str) -> None:
        """See `Observer.dropped`."""
        self._tell(lambda observer: observer.dropped(run))

    def _tell(self, call: Callable[[Observer], Any]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:  # noqa: BLE001 - whatever an observer raises, the run must not suffer
                _log.exception("observer %s failed; the run goes on", type(observer).__name__)
