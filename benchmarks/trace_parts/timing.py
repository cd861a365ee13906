"""How long something takes, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from common import Figures

T = TypeVar("T")


def timed(act: Callable[[T], object], items: Iterable[T]) -> list[tuple[float, float]]:
    """Return how long each took, and how much processor time, in seconds."""
    taken = []
    for item in items:
        begun, worked = time.perf_counter(), time.process_time()
        act(item)
        taken.append((time.perf_counter() - begun, time.process_time() - worked))
    return taken


def summary(taken: list[tuple[float, float]]) -> Figures:
    """Return median, 95th percentile and the slowest, and the 95th of the processor time, in milliseconds."""
    values, worked = np.array(taken).T * 1000
    return {
        "p50": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "max": float(values.max()),
        "processor_p95": float(np.quantile(worked, 0.95)),
    }
