"""OpenTelemetry spans, as a real OTLP receiver gets them, and what telemetry must never contain."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Answer, Loopback
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripting import checked, scripted, write

from cascade import Cascade
from cascade.observers import Observer, Observers
from cascade.observers.metrics import Metrics
from cascade.observers.telemetry import Telemetry
from cascade.records import Request, Result, Step

SECRET = "my password is swordfish"


@pytest.fixture
def memory() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def answered(tmp_path: Path, **options: Any) -> tuple[Cascade, Result]:
    """A run that escalates from `small` to `large`, with its cascade (closed)."""
    models = {
        "small": scripted("no idea", confidence=0.3),
        "large": scripted("certainly", confidence=0.9, price={"input": 1, "output": 5}, local=False),
    }
    graph = write(tmp_path, models, [checked("first", "small"), checked("last", "large")])
    with Cascade.load(graph, **options) as cascade:
        return cascade, cascade.invoke(SECRET)


def test_each_run_stage_and_call_is_a_span(
    tmp_path: Path, memory: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = memory
    cascade, result = answered(tmp_path)
    Telemetry(cascade.config, provider).on_run_end(result)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {
        f"invoke_workflow {cascade.name}",
        "stage first",
        "stage last",
        "chat small",
        "chat large",
    }
    run, call = spans[f"invoke_workflow {cascade.name}"], spans["chat large"]
    assert run.attributes is not None
    assert run.attributes["cascade.run"] == result.run
    assert run.attributes["gen_ai.operation.name"] == "invoke_workflow"
    assert spans["stage last"].parent is not None
    assert spans["stage last"].parent.span_id == run.context.span_id
    assert call.parent is not None
    assert call.parent.span_id == spans["stage last"].context.span_id
    assert call.attributes is not None
    assert call.attributes["gen_ai.usage.output_tokens"] == 1
    assert (call.kind, spans["chat small"].kind) == (trace.SpanKind.CLIENT, trace.SpanKind.INTERNAL)
    [event] = call.events
    assert event.name == "gen_ai.evaluation.result"
    assert event.attributes is not None
    assert event.attributes["gen_ai.evaluation.score.value"] == pytest.approx(0.9)
    assert event.attributes["gen_ai.evaluation.score.label"] == "pass"


def test_spans_lie_within_their_parents(
    tmp_path: Path, memory: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = memory
    cascade, result = answered(tmp_path)
    Telemetry(cascade.config, provider).on_run_end(result)
    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}
    for span in spans:
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        if span.parent is not None:
            parent = by_id[span.parent.span_id]
            assert parent.start_time is not None
            assert span.start_time >= parent.start_time


def test_no_text_is_in_a_span_unless_the_graph_asks_for_it(
    tmp_path: Path, memory: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = memory
    cascade, result = answered(tmp_path)
    failed = result.trace[0].calls[0].model_copy(update={"error": f"server said: {SECRET}", "text": ""})
    broken = result.trace[0].model_copy(update={"calls": (failed,), "estimate": None})
    result = result.model_copy(update={"trace": (broken, result.trace[1])})
    Telemetry(cascade.config, provider).on_run_end(result)
    quiet = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "swordfish" not in quiet
    assert "certainly" not in quiet
    assert "error.type" in quiet
    exporter.clear()
    open_trace = cascade.config.trace.model_copy(update={"otel_content": True})
    Telemetry(cascade.config.model_copy(update={"trace": open_trace}), provider).on_run_end(result)
    loud = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "swordfish" in loud
    assert "certainly" in loud


def test_a_run_is_a_child_of_the_span_it_was_asked_in(
    tmp_path: Path, memory: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = memory
    cascade, result = answered(tmp_path)
    with trace.get_tracer("app", tracer_provider=provider).start_as_current_span("request") as outer:
        Telemetry(cascade.config, provider).on_run_end(result)
    run = next(s for s in exporter.get_finished_spans() if s.name.startswith("invoke_workflow"))
    assert run.parent is not None
    assert run.parent.span_id == outer.get_span_context().span_id


def test_a_real_collector_gets_the_spans_of_the_command_line(tmp_path: Path) -> None:
    graph = write(tmp_path, {"small": scripted("yes", confidence=0.99)}, [checked("only", "small")])
    with Loopback() as collector:
        collector.answers = [Answer(headers={"Content-Type": "application/x-protobuf"}, chunks=[b""])]
        env = os.environ | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "CASCADE_TRACE_DB": str(tmp_path / "t.db"),
        }
        command = [sys.executable, "-m", "cascade.cli.main", "run", str(graph), SECRET, "--otel"]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seen = [request for request in collector.requests if request.path.endswith("/v1/traces")]
    spans = []
    for request in seen:
        message = ExportTraceServiceRequest()
        message.ParseFromString(request.body)
        for resource in message.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            assert names["service.name"] == "cascade"
            spans += [span for scope in resource.scope_spans for span in scope.spans]
        assert b"swordfish" not in request.body
    assert {span.name for span in spans} >= {"stage only", "chat small"}
    assert len({span.trace_id for span in spans}) == 1


def test_nothing_is_sent_without_otel(tmp_path: Path) -> None:
    graph = write(tmp_path, {"small": scripted("yes", confidence=0.99)}, [checked("only", "small")])
    with Loopback() as collector:
        env = os.environ | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "CASCADE_TRACE_DB": str(tmp_path / "t.db"),
        }
        command = [sys.executable, "-m", "cascade.cli.main", "run", str(graph), "hello"]
        assert subprocess.run(command, env=env, capture_output=True, text=True).returncode == 0
        assert collector.requests == []


def test_the_span_of_a_nested_graph_names_its_run(
    tmp_path: Path, memory: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    (tmp_path / "inner").mkdir()
    stages = [{"name": "only", "ask": ["m"]}]
    write(tmp_path / "inner", {"m": scripted("yes")}, stages)
    graph = write(tmp_path, {"m": {"kind": "cascade", "path": "inner/graph.yaml", "local": True}}, stages)
    with Cascade.load(graph) as cascade:
        result = cascade.invoke(SECRET)
    Telemetry(cascade.config, memory[0]).on_run_end(result)
    (call,) = (span for span in memory[1].get_finished_spans() if span.name == "chat m")
    assert call.attributes is not None
    assert call.attributes["cascade.inner_run"] == result.trace[0].calls[0].meta["run"]


class Recorder(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.results: list[Result] = []
        self.asking = asyncio.Event()

    def on_run_start(self, run: str, graph: str, request: Request) -> None:
        self.told.append(("run_start", request.text))

    def on_stage_start(self, run: str, stage: str) -> None:
        self.told.append(("stage_start", stage))
        self.asking.set()

    def on_stage_end(self, run: str, step: Step) -> None:
        self.told.append(("stage_end", step.stage))

    def on_run_end(self, result: Result) -> None:
        self.told.append(("run_end", result.status))
        self.results.append(result)

    def on_run_error(self, run: str) -> None:
        self.told.append(("run_error", ""))


def test_observers_are_told_everything_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    answered(tmp_path, observers=[recorder])
    assert recorder.told == [
        ("run_start", SECRET), ("stage_start", "first"), ("stage_end", "first"),
        ("stage_start", "last"), ("stage_end", "last"), ("run_end", "accepted"),
    ]  # fmt: skip


def test_an_observer_that_fails_changes_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Observer):
        def on_stage_start(self, run: str, stage: str) -> None:
            raise ValueError("no")

    recorder = Recorder()
    _, result = answered(tmp_path, observers=[Broken(), recorder])
    assert result.status == "accepted"
    assert ("run_end", "accepted") in recorder.told
    assert "observer Broken failed" in caplog.text


async def test_a_cancelled_run_is_told_and_counted_with_what_it_cost(tmp_path: Path) -> None:
    recorder, metrics = Recorder(), Metrics()
    slow = {"slow": scripted("never", delay=5.0, price={"input": 1.0, "output": 2.0})}
    graph = write(tmp_path, slow, [checked("only", "slow")])
    async with Cascade.load(graph, observers=[recorder, metrics]) as cascade:
        task = asyncio.create_task(cascade.ainvoke("hello"))
        await asyncio.wait_for(recorder.asking.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert recorder.told[-1] == ("run_end", "cancelled")
    assert (recorder.results[0].status, recorder.results[0].cost_usd > 0) == ("cancelled", True)
    count = {"graph": "test", "rule": "cancelled", "status": "cancelled", "tier": ""}
    assert metrics.registry.get_sample_value("cascade_runs_total", count) == 1.0
    assert metrics.registry.get_sample_value("cascade_runs_active", {"graph": "test"}) == 0.0


def test_no_observers_is_fine() -> None:
    Observers([]).on_run_error("01AA")
