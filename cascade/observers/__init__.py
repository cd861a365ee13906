"""Watching runs: telemetry and metrics."""
