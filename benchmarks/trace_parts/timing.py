"""Repeated timings and their summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from common import Figures

T = TypeVar("T")


def timed(function: Callable[[T], object], items: Iterable[T]) -> list[tuple[float, float]]:
    """Return the wall time and the processor time of each call, in seconds."""
    times = []
    for item in items:
        start, cpu_start = time.perf_counter(), time.process_time()
        function(item)
        times.append((time.perf_counter() - start, time.process_time() - cpu_start))
    return times


def summary(times: list[tuple[float, float]]) -> Figures:
    """Return median, 95th percentile and maximum, and the 95th of the processor time, in milliseconds."""
    wall, cpu = np.array(times).T * 1000
    return {
        "p50": float(np.median(wall)),
        "p95": float(np.quantile(wall, 0.95)),
        "max": float(wall.max()),
        "processor_p95": float(np.quantile(cpu, 0.95)),
    }
