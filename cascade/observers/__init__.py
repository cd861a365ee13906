"""Watching runs: the `Observer` protocol, and two that use it: OpenTelemetry spans, Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names
from cascade.observers._observer import Observer, Observers

if TYPE_CHECKING:
    from cascade.observers.metrics import Metrics

__all__ = ["Metrics", "Observer", "Observers"]

if not TYPE_CHECKING:  # a type checker reads the import above instead
    __getattr__ = lazy_names(__name__, {".metrics": "Metrics"})
