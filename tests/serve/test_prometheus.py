"""Prometheus metrics: what is counted, and what never becomes a label."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from runs_maker import HAIKU, quick, run, step

from cascade.observers.metrics import Metrics
from cascade.records import Request, Trial


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = bytes(metrics.response().body).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_runs_decisions_calls_and_spend_are_counted() -> None:
    metrics = Metrics()
    metrics.on_run_end(run("01AA"))
    metrics.on_run_end(quick("01AB"))
    metrics.on_run_end(quick("01AC"))
    count = value(
        metrics, "cascade_runs_total", graph="support", status="accepted", rule="confident", tier="haiku"
    )
    assert count == 2
    assert value(metrics, "cascade_run_seconds_count", graph="support") == 3
    assert value(metrics, "cascade_cost_usd_total", graph="support", model="strong") == pytest.approx(0.0011)
    assert value(metrics, "cascade_tokens_total", graph="support", model="nano", direction="in") == 27
    below = {"graph": "support", "stage": "first", "action": "escalate", "rule": "below_threshold"}
    assert value(metrics, "cascade_decisions_total", **below) == 1
    bucket = {"graph": "support", "stage": "first", "le": "0.6"}
    assert value(metrics, "cascade_confidence_bucket", **bucket) == 1


def test_failed_calls_have_an_outcome_of_their_own() -> None:
    metrics = Metrics()
    broken = HAIKU.model_copy(update={"error": "no answer", "text": ""})
    metrics.on_run_end(run("01AA", status="abstained", text=None, trace=(step("first", "no_draft", broken),)))
    labels = {"graph": "support", "model": "nano", "tier": "haiku"}
    assert value(metrics, "cascade_calls_total", outcome="failed", **labels) == 1
    assert value(metrics, "cascade_calls_total", outcome="ok", **labels) is None


def test_runs_drawn_for_a_shadow_or_a_canary_are_counted() -> None:
    metrics = Metrics()
    facts = (
        Trial(part="shadow", model="new", share=0.1, refused="local_only"),
        Trial(part="canary", model="new", share=0.1),
    )
    first = step("first", "confident", HAIKU, confidence=0.97)
    first = first.model_copy(update={"decision": first.decision.model_copy(update={"facts": facts})})
    metrics.on_run_end(quick("01AA", trace=(first,)))
    labels = {"graph": "support", "stage": "first", "model": "new"}
    assert value(metrics, "cascade_trials_total", part="shadow", outcome="local_only", **labels) == 1
    assert value(metrics, "cascade_trials_total", part="canary", outcome="asked", **labels) == 1


def test_a_run_is_active_until_it_ends_or_is_dropped() -> None:
    metrics = Metrics()
    asked = Request(text="hello")
    metrics.on_run_start("01AA", "support@1", asked)
    metrics.on_run_start("01AB", "support@1", asked)
    assert value(metrics, "cascade_runs_active", graph="support") == 2
    metrics.on_run_end(run("01AA"))
    metrics.on_run_error("01AB")
    metrics.on_run_error("01AB")
    assert value(metrics, "cascade_runs_active", graph="support") == 0


def test_a_waiting_run_counts_only_once_it_has_ended() -> None:
    metrics = Metrics()
    metrics.on_run_end(run("01AA", status="waiting", rule=None))
    assert value(metrics, "cascade_run_seconds_count", graph="support") is None
    metrics.on_run_end(run("01AA"))
    assert value(metrics, "cascade_run_seconds_count", graph="support") == 1


def test_no_text_of_a_request_or_an_answer_is_exposed() -> None:
    metrics = Metrics()
    metrics.on_run_end(run("01AA", request=Request(text="my secret question"), text="my secret answer"))
    assert b"secret" not in bytes(metrics.response().body)
