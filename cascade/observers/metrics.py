"""Prometheus metrics of the runs of this process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from cascade.observers import Observer
from cascade.records import Request, Result, Trial

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics(Observer):
    """Counts runs, decisions and calls; label values come from graph files, never from requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._active = Gauge("cascade_runs_active", "Runs at work.", ["graph"], registry=self.registry)
        self._runs = Counter(
            "cascade_runs", "Ended runs.", ["graph", "status", "rule", "tier"], registry=self.registry
        )
        self._run_seconds = Histogram(
            "cascade_run_seconds", "Time of a run.", ["graph"], buckets=_SECONDS, registry=self.registry
        )
        self._decisions = Counter(
            "cascade_decisions",
            "Decisions of stages.",
            ["graph", "stage", "action", "rule"],
            registry=self.registry,
        )
        self._confidence = Histogram(
            "cascade_confidence",
            "Measured confidence.",
            ["graph", "stage"],
            buckets=_CONFIDENCE,
            registry=self.registry,
        )
        self._calls = Counter(
            "cascade_calls", "Model calls.", ["graph", "model", "tier", "outcome"], registry=self.registry
        )
        self._call_seconds = Histogram(
            "cascade_call_seconds",
            "Time of a call.",
            ["graph", "model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._cost = Counter(
            "cascade_cost_usd", "Spend in US dollars.", ["graph", "model"], registry=self.registry
        )
        self._tokens = Counter(
            "cascade_tokens", "Tokens.", ["graph", "model", "direction"], registry=self.registry
        )
        self._trials = Counter(
            "cascade_trials",
            "Runs drawn for a shadow or a canary, by the rule that left it out, else asked.",
            ["graph", "stage", "part", "model", "outcome"],
            registry=self.registry,
        )
        self._graphs: dict[str, str] = {}  # run → graph, while it is at work

    def on_run_start(self, run: str, graph: str, request: Request) -> None:
        """Count a run as active."""
        self._graphs[run] = _name(graph)
        self._active.labels(_name(graph)).inc()

    def on_run_error(self, run: str) -> None:
        """Count a run as no longer active."""
        self._deactivate(run)

    def _deactivate(self, run: str) -> None:
        if (graph := self._graphs.pop(run, None)) is not None:
            self._active.labels(graph).dec()

    def on_run_end(self, result: Result) -> None:
        """Count the result of a run; one that waits for a person is counted once it has ended."""
        self._deactivate(result.run)
        if result.status == "waiting":
            return
        graph = _name(result.graph)
        self._runs.labels(graph, result.status, result.rule or "", result.tier or "").inc()
        self._run_seconds.labels(graph).observe(result.seconds)
        for step in result.trace:
            self._decisions.labels(graph, step.stage, step.decision.action, step.decision.rule).inc()
            if step.estimate is not None:
                self._confidence.labels(graph, step.stage).observe(step.estimate.confidence)
            for fact in step.decision.facts:
                if isinstance(fact, Trial):
                    drawn = (fact.part, fact.model, fact.refused or "asked")
                    self._trials.labels(graph, step.stage, *drawn).inc()
            for call in step.calls:
                outcome = "ok" if call.error is None else "failed"
                self._calls.labels(graph, call.model, call.tier, outcome).inc()
                self._call_seconds.labels(graph, call.model).observe(call.seconds)
                self._cost.labels(graph, call.model).inc(call.cost_usd)
                self._tokens.labels(graph, call.model, "in").inc(call.tokens_in)
                self._tokens.labels(graph, call.model, "out").inc(call.tokens_out)

    def response(self) -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


def _name(graph: str) -> str:
    return graph.partition("@")[0]
