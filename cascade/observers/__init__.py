"""Watching runs: the `Observer` protocol, and two that use it: OpenTelemetry spans, Prometheus metrics."""

from cascade.observers._observer import Observer, Observers

__all__ = ["Observer", "Observers"]
