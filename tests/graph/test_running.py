"""Whole runs over scripted models, one for each rule, through LangGraph and the trace store."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback, chat, status
from scripting import REMOTE, checked, load, scripted, write

from cascade import Cascade, RequestError, Result, Step, TextPiece
from cascade.explain import describe, explain, render_text
from cascade.records import LimitShortfall

TWO: list[dict[str, Any]] = [checked("first", "small"), checked("last", "large")]


def two(folder: Path, small: dict[str, Any], large: dict[str, Any], **settings: Any) -> Cascade:
    return load(folder, {"small": small, "large": large}, TWO, **settings)


def path(result: Result) -> list[tuple[str, str, str]]:
    return [(step.stage, step.decision.action, step.decision.rule) for step in result.trace]


def test_a_sure_small_model_answers_and_the_large_one_is_never_asked(tmp_path: Path) -> None:
    with two(
        tmp_path, scripted("yes", confidence=0.9, tier="haiku"), scripted("no", confidence=0.9)
    ) as cascade:
        result = cascade.invoke("hello")
    assert path(result) == [("first", "accept", "confident")]
    assert (result.status, result.text, result.tier, result.stage) == ("accepted", "yes", "haiku", "first")
    assert result.confidence == pytest.approx(0.9)
    assert result.calibrated is False


def test_an_unsure_small_model_escalates(tmp_path: Path) -> None:
    with two(tmp_path, scripted("no", confidence=0.5), scripted("yes", confidence=0.9)) as cascade:
        result = cascade.invoke("hello")
    assert path(result) == [("first", "escalate", "below_threshold"), ("last", "accept", "confident")]
    assert (result.text, result.model) == ("yes", "large")


def test_no_stage_sure_abstains_with_the_best_draft(tmp_path: Path) -> None:
    with two(tmp_path, scripted("maybe", confidence=0.7), scripted("no", confidence=0.3)) as cascade:
        result = cascade.invoke("hello")
    assert (result.status, result.text, result.draft, result.model) == ("abstained", None, "maybe", "small")


def test_best_effort_is_returned_where_the_graph_asks_for_it(tmp_path: Path) -> None:
    small, large = scripted("maybe", confidence=0.7), scripted("no", confidence=0.3)
    with two(tmp_path, small, large, on_exhausted="best") as cascade:
        result = cascade.invoke("hello")
    assert (result.status, result.text) == ("best_effort", "maybe")


def test_a_missing_signal_is_no_estimate_and_never_an_answer(tmp_path: Path) -> None:
    with Loopback() as server:
        server.answers = [chat("silent")]  # no log-probabilities in it
        remote = {"kind": "openai", "model": "m", "url": server.url, "key_env": None, "local": True}
        with two(tmp_path, remote, remote) as cascade:
            result = cascade.invoke("hello")
    assert [rule for _, _, rule in path(result)] == ["no_estimate", "no_estimate"]
    assert (result.status, result.draft, result.confidence) == ("abstained", "silent", None)


def test_a_failing_model_is_a_recorded_call_and_an_escalation(tmp_path: Path) -> None:
    with two(tmp_path, scripted(fail="out of memory"), scripted("yes", confidence=1.0)) as cascade:
        result = cascade.invoke("hello")
    assert path(result)[0] == ("first", "escalate", "no_draft")
    assert "out of memory" in (result.trace[0].calls[0].error or "")
    assert result.text == "yes"


def test_an_unusable_answer_of_a_paid_model_is_still_paid_for(tmp_path: Path) -> None:
    with Loopback() as server:
        server.answers = [chat("no such label", usage=(1000, 500))]
        price = {"input": 1.0, "output": 2.0}
        remote = {"kind": "openai", "model": "m", "url": server.url, "key_env": None, "price": price}
        with load(tmp_path, {"m": {**remote, "labels": ["yes", "no"]}}, [{"name": "s", "ask": ["m"]}]) as c:
            result = c.invoke("hello")
    assert path(result) == [("s", "abstain", "no_draft")]
    assert "no such label" in (result.trace[0].calls[0].error or "")
    assert result.cost_usd == pytest.approx(0.002)


def test_a_slow_model_is_cut_off_by_its_own_time_out(tmp_path: Path) -> None:
    with two(tmp_path, scripted("late", delay=30, timeout=0.05), scripted("yes", confidence=1.0)) as cascade:
        result = cascade.invoke("hello")
    assert "0.05 s" in (result.trace[0].calls[0].error or "")
    assert result.text == "yes"


def test_a_run_never_takes_longer_than_its_limit(tmp_path: Path) -> None:
    slow = scripted("late", delay=30)
    with two(tmp_path, slow, slow, limits={"seconds": 0.1}) as cascade:
        result = cascade.invoke("hello")
    assert path(result) == [("first", "escalate", "no_draft"), ("last", "abstain", "over_seconds")]
    assert result.trace[1].calls == ()


def test_a_stage_whose_worst_case_costs_too_much_is_not_started(tmp_path: Path) -> None:
    large = scripted("yes", confidence=1.0, max_tokens=50, **REMOTE)
    with two(tmp_path, scripted("no", confidence=0.1), large, limits={"cost_usd": 0.00011}) as cascade:
        result = cascade.invoke(" ".join(["word"] * 20))
        short = cascade.invoke("word")
    assert short.status == "accepted"
    assert path(result)[1] == ("last", "abstain", "over_cost")
    assert "worst case $0.00012" in (describe(result.trace[1].decision) or "")
    [shortfall] = result.trace[1].decision.facts
    assert isinstance(shortfall, LimitShortfall)
    assert (shortfall.limit, shortfall.worst_case) == ("cost_usd", pytest.approx(0.00012, rel=0.1))
    assert result.cost_usd == 0


def test_calls_are_limited_too(tmp_path: Path) -> None:
    with two(
        tmp_path, scripted("no", confidence=0.1), scripted("x", confidence=1.0), limits={"calls": 1}
    ) as c:
        result = c.invoke("hello")
    assert path(result)[1] == ("last", "abstain", "over_calls")


def test_a_local_only_request_skips_remote_models_and_goes_on(tmp_path: Path) -> None:
    models = {
        "small": scripted("no", confidence=0.1),
        "remote": scripted("leak", confidence=1.0, **REMOTE),
        "third": scripted("kept", confidence=1.0),
    }
    stages = [checked("first", "small"), checked("second", "remote"), checked("last", "third")]
    with load(tmp_path, models, stages) as cascade:
        here = cascade.invoke("secret", local_only=True)
        anywhere = cascade.invoke("public")
    assert [rule for _, _, rule in path(here)] == ["below_threshold", "local_only", "confident"]
    assert here.text == "kept"
    assert all(call.local for step in here.trace for call in step.calls)
    assert anywhere.text == "leak"


def test_a_mixed_stage_asks_only_its_local_models_when_it_must(tmp_path: Path) -> None:
    models = {"here": scripted("a", confidence=0.9), "there": scripted("b", confidence=1.0, **REMOTE)}
    with load(tmp_path, models, [checked("only", "here", "there")]) as cascade:
        result = cascade.invoke("secret", local_only=True)
    assert [call.model for call in result.trace[0].calls] == ["here"]


def test_the_surest_of_several_models_is_chosen(tmp_path: Path) -> None:
    models = {"one": scripted("a", confidence=0.6), "two": scripted("b", confidence=0.9)}
    with load(tmp_path, models, [checked("only", "one", "two")]) as cascade:
        result = cascade.invoke("hello")
    assert (result.text, result.model) == ("b", "two")
    assert len(result.trace[0].calls) == 2


def test_samples_that_agree_are_accepted(tmp_path: Path) -> None:
    models = {"one": scripted(replies={"q": ["a", "b", "a", "a"]})}
    stage = checked("only", "one", by="agreement", accept=0.7, samples=4)
    with load(tmp_path, models, [stage]) as cascade:
        result = cascade.invoke("q")
    assert (result.text, result.confidence) == ("a", 0.75)
    assert [call.sample for call in result.trace[0].calls] == [0, 1, 2, 3]


def branching(folder: Path, **gate: Any) -> Cascade:
    models = {"bank": scripted("bank answer"), "shop": scripted("shop answer")}
    rules = {"bank": ["account", "transfer"], "shop": ["order", "parcel"]}
    stages = [
        {"name": "door", "gate": {"by": "keywords", "rules": rules, **gate}},
        {"name": "bank", "ask": ["bank"], "escalate": "end"},
        {"name": "shop", "ask": ["shop"]},
    ]
    return load(folder, models, stages)


def test_a_gate_branches_and_the_step_says_how_it_scored(tmp_path: Path) -> None:
    with branching(tmp_path, to={"bank": "bank", "shop": "shop"}) as cascade:
        result = cascade.invoke("where is my parcel")
    assert path(result) == [("door", "route", "routed"), ("shop", "accept", "unchecked")]
    assert result.trace[0].gate == {"bank": 0.0, "shop": 1.0}
    assert result.text == "shop answer"


def test_an_unsure_gate_escalates(tmp_path: Path) -> None:
    with branching(tmp_path, to={"bank": "bank", "shop": "shop"}, accept=0.6) as cascade:
        result = cascade.invoke("good morning")
    assert path(result)[0] == ("door", "escalate", "gate_unsure")


def test_a_classifier_gate_is_a_recorded_call(tmp_path: Path) -> None:
    models = {
        "sorter": scripted("shop", confidence=0.8, labels=["bank", "shop"]),
        "bank": scripted("bank answer"),
        "shop": scripted("shop answer"),
    }
    stages = [
        {"name": "only", "ask": ["bank", "shop"], "gate": {"by": "classifier", "model": "sorter"}},
    ]
    with load(tmp_path, models, stages) as cascade:
        result = cascade.invoke("parcel")
    assert [(call.model, call.role) for call in result.trace[0].calls] == [
        ("sorter", "gate"),
        ("shop", "answer"),
    ]
    assert result.text == "shop answer"


def test_a_gate_that_fails_escalates(tmp_path: Path) -> None:
    models = {
        "sorter": scripted(fail="down", labels=["bank", "shop"]),
        "bank": scripted("bank answer"),
        "shop": scripted("shop answer"),
        "last": scripted("fallback"),
    }
    gate = {"by": "classifier", "model": "sorter"}
    stages = [{"name": "first", "ask": ["bank", "shop"], "gate": gate}, {"name": "last", "ask": ["last"]}]
    with load(tmp_path, models, stages) as cascade:
        result = cascade.invoke("parcel")
    assert path(result)[0] == ("first", "escalate", "gate_failed")
    assert result.text == "fallback"


def test_a_person_answers_and_the_run_goes_on_from_where_it_waited(tmp_path: Path) -> None:
    models = {"small": scripted("no", confidence=0.1), "person": {"kind": "human", "tier": "human"}}
    with load(tmp_path, models, [checked("first", "small"), {"name": "last", "ask": ["person"]}]) as cascade:
        waiting = cascade.invoke("hello")
        done = cascade.resume(waiting.run, "forty-two")
        with pytest.raises(RequestError, match="not waiting"):
            cascade.resume(waiting.run, "again")
    assert (waiting.status, waiting.text, len(waiting.trace)) == ("waiting", None, 1)
    assert (done.status, done.text, done.run) == ("accepted", "forty-two", waiting.run)
    assert path(done)[0] == ("first", "escalate", "below_threshold")


async def test_gated_drafts_never_stream_and_unchecked_answers_do(tmp_path: Path) -> None:
    models = {"small": scripted("secret draft", confidence=0.1), "large": scripted("one two three")}
    cascade = load(tmp_path, models, [checked("first", "small"), {"name": "last", "ask": ["large"]}])
    async with cascade:
        events = [event async for event in cascade.astream("hello")]
    assert "".join(event.text for event in events if isinstance(event, TextPiece)) == "one two three"
    assert sum(isinstance(event, TextPiece) for event in events) > 1
    assert [event.stage for event in events if isinstance(event, Step)] == ["first", "last"]
    assert isinstance(events[-1], Result)


async def test_a_batch_keeps_order_and_bounds_concurrency(tmp_path: Path) -> None:
    replies = {str(number): f"answer {number}" for number in range(40)}
    async with load(
        tmp_path, {"m": scripted(replies=replies, delay=0.01)}, [{"name": "s", "ask": ["m"]}]
    ) as c:
        results = await c.abatch([str(number) for number in range(40)], concurrency=7)
        assert [result.text for result in results] == [f"answer {number}" for number in range(40)]
        with pytest.raises(RequestError, match=r"inputs\[1\].*empty"):
            await c.abatch(["fine", "  "])


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "\ud800", "x" * 1_000_001, None, 7])
def test_a_request_that_no_model_can_answer_is_refused_clearly(tmp_path: Path, text: Any) -> None:
    with two(tmp_path, scripted("x"), scripted("x")) as cascade, pytest.raises(RequestError):
        cascade.invoke(text)


def test_the_compiled_graph_is_a_runnable_with_plain_json_state(tmp_path: Path) -> None:
    with two(tmp_path, scripted("no", confidence=0.1), scripted("yes", confidence=0.9)) as cascade:
        state = cascade.graph.invoke({"request": {"text": "hello"}})
        drawn = cascade.graph.get_graph().draw_mermaid()
    assert [step["decision"]["rule"] for step in state["trace"]] == ["below_threshold", "confident"]
    assert "first" in drawn
    assert "last" in drawn


def test_invoke_works_inside_a_running_loop(tmp_path: Path) -> None:
    async def notebook() -> Result:
        with two(tmp_path, scripted("yes", confidence=0.9), scripted("no")) as cascade:
            return cascade.invoke("hello")

    assert asyncio.run(notebook()).text == "yes"


def test_the_same_cascade_serves_several_event_loops(tmp_path: Path) -> None:
    with two(tmp_path, scripted("yes", confidence=0.9), scripted("no")) as cascade:
        texts = [asyncio.run(cascade.ainvoke("hello")).text for _ in range(2)]
    assert texts == ["yes", "yes"]


def test_savings_are_priced_on_a_recorded_assumption(tmp_path: Path) -> None:
    large = scripted("yes", confidence=1.0, **REMOTE)
    with two(tmp_path, scripted("sure", confidence=0.9), large) as cascade:
        result = cascade.invoke("hello")
    assert result.baseline is not None
    assert (result.baseline.model, result.cost_usd) == ("large", 0)
    assert result.baseline.cost_usd > 0
    assert "asked once" in result.baseline.assumption


def test_tracing_services_get_nothing_even_if_the_environment_says_so(tmp_path: Path) -> None:
    graph = write(tmp_path, {"small": scripted("yes")}, [checked("only", "small")])
    code = (
        f"from cascade import Cascade\nwith Cascade.load({str(graph)!r}) as c: print(c.invoke('hello').text)"
    )
    with Loopback() as server:
        server.answers = [status(200, "{}")]
        env = {
            "LANGSMITH_TRACING": "true",
            "LANGCHAIN_TRACING_V2": "true",
            "LANGSMITH_API_KEY": "lsv2_not_a_key",
            "LANGSMITH_ENDPOINT": server.url,
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True
        )
        assert done.stdout == "yes\n", done.stderr
        assert server.requests == []


def test_an_audited_answer_goes_on_and_is_explained(tmp_path: Path) -> None:
    stages = [checked("first", "small", audit_rate=1.0), checked("last", "large")]
    sure, unsure = scripted("yes", confidence=0.9), scripted("no", confidence=0.3)
    with load(tmp_path, {"small": sure, "large": unsure}, stages) as cascade:
        result = cascade.invoke("hello")
    assert path(result) == [("first", "escalate", "audit"), ("last", "abstain", "below_threshold")]
    assert (result.status, result.rule, result.text, result.stage) == ("accepted", "audit", "yes", "first")
    told = " ".join(render_text(explain(result)).split())
    assert "confident, passed on to last for an audit (rule audit)" in told
    assert "no later stage accepted an answer, so this one stands" in told
    with load(tmp_path, {"small": sure, "large": sure}, stages) as cascade:
        graded = cascade.invoke("hello")
    assert path(graded) == [("first", "escalate", "audit"), ("last", "accept", "confident")]
    assert "undrawn, it would have been accepted" in " ".join(render_text(explain(graded)).split())
