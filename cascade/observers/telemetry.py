"""OpenTelemetry: one span per run, stage and model call, made from the finished trace.

Names are those of the GenAI semantic conventions as of November 2026 (in development; the Python package's
constants for them are deprecated). The confidence check is the event `gen_ai.evaluation.result`. Texts and
error messages, which may quote texts, are left out unless the graph asks for them.

The spans go to the process's tracer provider, which the embedding program or `export` has set up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from cascade.errors import CascadeError
from cascade.extras import missing_package
from cascade.observers import Observer
from cascade.records import Call, Request, Result, Step
from cascade.spec.schema import Graph

_PROVIDERS = {"llamacpp": "llama_cpp", "openai": "openai"}
Attributes = dict[str, str | bool | int | float]


class Telemetry(Observer):
    """Emits the spans of each finished run, as children of the caller's current span.

    Args:
        graph: the graph whose runs these are.
        provider: receives the spans; default: the process's tracer provider at the time of the run.
    """

    def __init__(self, graph: Graph, provider: TracerProvider | None = None) -> None:
        self._graph, self._provider = graph, provider
        self._content = graph.trace.otel_content

    def on_run_end(self, result: Result) -> None:
        """Emit the spans of `result`; those of a run that waits for a person come once it has ended."""
        if result.status == "waiting":
            return
        provider = self._provider or trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # none was set up
            return
        tracer = trace.get_tracer("cascade", tracer_provider=provider)
        begin = int(datetime.fromisoformat(result.started).timestamp() * 1e9)
        name = f"invoke_workflow {self._graph.name}"
        with _span(tracer, name, begin, begin, result.seconds, _run(result)) as run:
            for step in result.trace:
                self._stage(tracer, begin, step, result.request)
            if result.status != "accepted":
                run.set_attribute("cascade.answered", False)

    def _stage(self, tracer: Tracer, begin: int, step: Step, request: Request) -> None:
        start = begin + int(step.started * 1e9)
        with _span(tracer, f"stage {step.stage}", start, start, step.seconds, _step(step)) as stage:
            spans = []
            for call in step.calls:
                at = begin + int(call.started * 1e9)
                kind = SpanKind.INTERNAL if call.local else SpanKind.CLIENT
                attributes = self._call(call, request)
                with _span(tracer, f"chat {call.model}", at, at, call.seconds, attributes, kind) as span:
                    spans.append(span)
                    if call.error is not None:
                        span.set_status(Status(StatusCode.ERROR, call.error if self._content else None))
                    if step.estimate is not None and step.estimate.chosen == len(spans) - 1:
                        span.add_event("gen_ai.evaluation.result", _evaluation(step), at + _ns(call.seconds))
            if step.estimate is not None and step.estimate.chosen >= len(spans):
                stage.add_event("gen_ai.evaluation.result", _evaluation(step), start + _ns(step.seconds))

    def _call(self, call: Call, request: Request) -> Attributes:
        config = self._graph.models.get(call.model)
        kind = "" if config is None else str(config.kind)
        attributes: Attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(kind, kind or "unknown"),
            "gen_ai.request.model": str(getattr(config, "model", call.model)),
            "gen_ai.usage.input_tokens": call.tokens_in,
            "gen_ai.usage.output_tokens": call.tokens_out,
            "cascade.model": call.model,
            "cascade.tier": call.tier,
            "cascade.role": call.role,
            "cascade.sample": call.sample,
            "cascade.cost_usd": call.cost_usd,
            "cascade.local": call.local,
        }
        for key in ("temperature", "max_tokens", "seed"):
            if (value := getattr(config, key, None)) is not None:
                attributes[f"gen_ai.request.{key}"] = value
        if isinstance(model := call.meta.get("model"), str):
            attributes["gen_ai.response.model"] = model
        if isinstance(inner := call.meta.get("run"), str):
            attributes["cascade.inner_run"] = inner
        if call.error is not None:
            attributes["error.type"] = "_OTHER"  # the convention's word where there is no class of errors
        elif self._content:
            attributes["gen_ai.output.messages"] = _messages([("assistant", call.text)])
        if self._content:
            messages = [(message.role, message.content) for message in request.messages]
            attributes["gen_ai.input.messages"] = _messages(messages or [("user", request.text)])
        return attributes


class _span:  # noqa: N801 - used as a function
    """A current span with times of its own, in nanoseconds."""

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        start: int,
        base: int,
        seconds: float,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        self._end = base + _ns(seconds)
        self._span = tracer.start_span(name, kind=kind, attributes=attributes, start_time=start)
        self._use = trace.use_span(self._span, end_on_exit=False)

    def __enter__(self) -> Span:
        return self._use.__enter__()

    def __exit__(self, *exc: Any) -> None:
        self._use.__exit__(*exc)
        self._span.end(self._end)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _run(result: Result) -> Attributes:
    attributes: Attributes = {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": result.graph.partition("@")[0],
        "cascade.run": result.run,
        "cascade.graph": result.graph,
        "cascade.status": result.status,
        "cascade.cost_usd": result.cost_usd,
        "cascade.local_only": result.request.local_only,
    }
    return attributes | _given(
        rule=result.rule, tier=result.tier, model=result.model, confidence=result.confidence,
        calibrated=result.calibrated,
    )  # fmt: skip


def _step(step: Step) -> Attributes:
    decision = step.decision
    return {"cascade.stage": step.stage, "cascade.action": decision.action} | _given(
        rule=decision.rule, threshold=decision.threshold, to=decision.to
    )


def _evaluation(step: Step) -> Attributes:
    """The confidence check, as the convention's evaluation event."""
    if step.estimate is None:
        return {}
    return {
        "gen_ai.evaluation.name": f"cascade.confidence.{step.estimate.by}",
        "gen_ai.evaluation.score.value": step.estimate.confidence,
        "gen_ai.evaluation.score.label": "pass" if step.decision.action == "accept" else "fail",
        "gen_ai.evaluation.explanation": f"rule {step.decision.rule}",
        "cascade.calibrated": step.estimate.calibrated,
    }


def _given(**values: str | bool | float | None) -> Attributes:
    return {f"cascade.{name}": value for name, value in values.items() if value is not None}


def _messages(messages: list[tuple[Any, str]]) -> str:
    parts = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in messages]
    return json.dumps(parts, ensure_ascii=False)


def export() -> Callable[[], None]:
    """Send this process's spans to an OTLP collector, configured by the OTEL_* environment variables.

    Returns a function that sends the remaining spans and ends the export.

    Raises:
        CascadeError: the extra `otel` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise CascadeError(missing_package("exporting spans", error, "otel")) from error
    provider = Provider(
        resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "cascade")})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown
