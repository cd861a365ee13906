"""How long something takes, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from common import Figures

T = TypeVar("T")


def timed(act: Callable[[T], object], items: Iterable[T]) -> list[float]:
    """Return how long each took, in seconds."""
    taken = []
    for item in items:
        begun = time.perf_counter()
        act(item)
        taken.append(time.perf_counter() - begun)
    return taken


def summary(taken: list[float]) -> Figures:
    """Return median, 95th percentile and the slowest, in milliseconds."""
    values = np.array(taken) * 1000
    return {
        "p50": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "max": float(values.max()),
    }
