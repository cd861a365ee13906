"""When stages and calls began: measured from the beginning of the run, for the viewer's waterfall."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from scripting import checked, load, scripted, write

from cascade import Cascade
from cascade.records import Call, Result, Step


def calls(result: Result) -> list[Call]:
    return [call for step in result.trace for call in step.calls]


def check_order(result: Result) -> None:
    """Each stage begins after the one before it ended, each call within its stage, all within the run."""
    end = 0.0
    for step in result.trace:
        assert step.started >= end - 1e-9
        end = step.started + step.seconds
        for call in step.calls:
            assert step.started <= call.started
            assert call.started + call.seconds <= end + 1e-9
    assert end <= result.seconds


@pytest.fixture
def cascade(tmp_path: Path) -> Cascade:
    models = {name: scripted(name, confidence=0.5, delay=0.02) for name in ("a", "b", "c")}
    stages = [checked("first", "a", "b", by="agreement", accept=0.99), checked("last", "c")]
    return load(tmp_path, models, stages)


def test_stages_and_calls_start_in_order(cascade: Cascade) -> None:
    with cascade:
        result = cascade.invoke("hello")
    assert len(result.trace) == 2
    assert result.trace[0].started > 0
    check_order(result)
    first, second = result.trace[0].calls
    assert second.started < first.started + first.seconds  # asked together


def test_a_graph_that_is_run_directly_counts_from_its_first_stage(cascade: Cascade) -> None:
    with cascade:
        state = cascade.graph.invoke({"request": {"text": "hello"}})
    steps = [Step.model_validate(step) for step in state["trace"]]
    assert 0.0 <= steps[0].started < 0.1
    assert all(call.started >= 0.0 for step in steps for call in step.calls)


def test_the_wait_for_a_person_does_not_count(tmp_path: Path) -> None:
    models = {"a": scripted("no", confidence=0.1), "desk": {"kind": "human", "tier": "opus"}}
    stages = [checked("first", "a"), {"name": "last", "ask": ["desk"]}]
    with load(tmp_path, models, stages) as cascade:
        waiting = cascade.invoke("hello")
        assert waiting.status == "waiting"
        first = waiting.trace[0]
        result = cascade.resume(waiting.run, "a person's answer")
    assert result.trace[0] == first
    assert (result.run, result.started) == (waiting.run, waiting.started)
    check_order(result)


def test_a_run_that_goes_on_in_another_process_keeps_its_start(tmp_path: Path) -> None:
    models = {"a": scripted("no", confidence=0.1, delay=0.05), "desk": {"kind": "human", "tier": "opus"}}
    stages = [checked("first", "a"), {"name": "last", "ask": ["desk"]}]
    path = write(tmp_path, models, stages)
    with Cascade.load(path) as cascade:
        waiting = cascade.invoke("hello")
    began = time.perf_counter()
    with Cascade.load(path) as cascade:
        result = cascade.resume(waiting.run, "a person's answer")
    passed = time.perf_counter() - began
    assert result.started == waiting.started
    assert result.trace[0] == waiting.trace[0]
    worked = waiting.trace[0].started + waiting.trace[0].seconds
    assert worked <= result.seconds <= worked + passed  # the wait is not in it, the first process's work is
    check_order(result)
