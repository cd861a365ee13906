"""Runs a test's own code on the decode thread, where weights and contexts live."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

from cascade.engine import ModelCache, Ticket, Weights, decode_worker

T = TypeVar("T")


def drain(steps: Generator[Ticket | None, None, T]) -> T:
    """Step a job, and what it waits for, to its end and return its result."""
    while True:
        try:
            ticket = next(steps)
            if ticket is not None and not ticket.done:
                ticket.stepper.step()
        except StopIteration as done:
            value: T = done.value
            return value


def with_weights(path: Path, body: Callable[[Weights], T]) -> T:
    """Load `path` on the decode thread, return what `body` makes of it, and free it again."""

    def steps(models: ModelCache, _queued: float) -> Generator[Ticket | None, None, Any]:
        yield
        weights = models.acquire(path)
        try:
            return body(weights)
        finally:
            models.release(weights)

    result: T = decode_worker().submit(path, steps).result(timeout=60)
    return result
