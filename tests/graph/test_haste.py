"""Early exit and hedging: slow or hopeless drafts give way, and everything they cost is recorded."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import CHATML, make_gguf
from loopback import Loopback, chat
from scripting import REMOTE, checked, load, scripted, write

from cascade import Cascade, ConfigError, Result, Step, TextPiece
from cascade.config.load import load_graph
from cascade.engine import RunningStats, TokenStats
from cascade.explain import explain, render_text
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.scripted import Scripted
from cascade.observers import Observer
from cascade.policy.early_exit import EarlyExit
from cascade.serve.board import Board
from cascade.trace import BudgetBook, TraceStore, default_url

LONG = " ".join(["word"] * 60)
LAST = {"name": "last", "ask": ["large"]}


def path(result: Result) -> list[tuple[str, str, str | None]]:
    return [(step.stage, step.decision.rule, step.decision.to) for step in result.trace]


def early(signal: str = "mean", **settings: Any) -> dict[str, Any]:
    check = {"by": "logprob", "signal": signal}
    return {
        "name": "first",
        "ask": ["small"],
        "confidence": check,
        "accept": 0.8,
        "early_exit": True,
        **settings,
    }


@pytest.mark.parametrize(("signal", "written"), [("mean", 21), ("p10", 7), ("min", 1)])
async def test_a_hopeless_draft_is_stopped_and_the_next_tier_starts(
    tmp_path: Path, signal: str, written: int
) -> None:
    models = {"small": scripted(LONG, confidence=0.5), "large": scripted("answer")}
    async with load(tmp_path, models, [early(signal), LAST]) as cascade:
        result = await cascade.ainvoke("hello")
    assert path(result) == [("first", "early_exit", "last"), ("last", "unchecked", None)]
    (call,) = result.trace[0].calls
    assert (call.tokens_out, call.meta["finish_reason"], call.text) == (written, "early_exit", "")
    assert call.meta["spared_tokens_at_most"] == 64 - written
    assert "could no longer be enough" in (call.error or "")
    assert (result.trace[0].decision.threshold, result.trace[0].estimate) == (0.8, None)
    explanation = explain(result, load_graph(tmp_path / "graph.yaml").graph)
    assert "What if: without early_exit" in render_text(explanation, width=200)


@pytest.mark.parametrize("isolate", ["none", "process"])
@pytest.mark.parametrize("signal", ["mean", "p10", "entropy"])
async def test_a_llama_cpp_model_is_stopped_at_the_first_hopeless_token(
    tmp_path: Path, signal: str, isolate: str
) -> None:
    make_gguf(tmp_path / "writer.gguf", chat_template=CHATML, seed=1)
    small = {"kind": "llamacpp", "path": "writer.gguf", "max_tokens": 20, "isolate": isolate}
    models = {"small": small, "large": scripted("answer")}
    async with load(tmp_path, models, [early(signal, early_exit=False), LAST]) as cascade:
        whole = await cascade.ainvoke("hello")
    async with load(tmp_path, models, [early(signal), LAST]) as cascade:
        result = await cascade.ainvoke("hello")
    rule = EarlyExit(signal=signal, accept=0.8, max_tokens=20)
    written = 0
    running = RunningStats()
    for written, token in enumerate(whole.trace[0].calls[0].tokens, 1):  # noqa: B007
        running.add(TokenStats(token.logprob, token.margin or 0.0, token.entropy or 0.0))
        if rule(running):
            break
    assert path(result)[0] == ("first", "early_exit", "last")
    (call,) = result.trace[0].calls
    assert 0 < written < 20
    assert (call.tokens_out, call.meta["finish_reason"]) == (written, "early_exit")
    assert call.meta["spared_tokens_at_most"] == 20 - written
    assert ("spared_seconds_at_most" in call.meta) == (written > 1)
    assert "ignored" not in call.meta
    assert f"That spared at most {20 - written} tokens" in render_text(explain(result), width=400)


async def test_a_draft_that_may_still_do_is_written_to_its_end(tmp_path: Path) -> None:
    models = {"small": scripted(LONG, confidence=0.9), "large": scripted("answer")}
    async with load(tmp_path, models, [early("min"), LAST]) as cascade:
        result = await cascade.ainvoke("hello")
    assert (result.text, path(result)) == (LONG, [("first", "confident", None)])


async def test_remote_models_and_switched_off_stages_are_not_stopped(tmp_path: Path) -> None:
    with Loopback() as server:
        server.answers = [chat("no", logprobs=[("n", -3.0), ("o", -3.0)])]
        far = {"kind": "openai", "model": "m", "url": server.url, "key_env": None, "local": True}
        async with load(tmp_path, {"small": far, "large": scripted("b")}, [early(), LAST]) as cascade:
            remote = await cascade.ainvoke("hello")
    models = {"small": scripted(LONG, confidence=0.5), "large": scripted("answer")}
    async with load(tmp_path, models, [early(early_exit=False), LAST]) as cascade:
        plain = await cascade.ainvoke("hello")
    assert [rule for _, rule, _ in path(remote)] == ["below_threshold", "unchecked"]
    assert [rule for _, rule, _ in path(plain)] == ["below_threshold", "unchecked"]


PAID: dict[str, Any] = {**REMOTE, "max_tokens": 50}


def hedged(
    small: dict[str, Any], large: dict[str, Any], hedge: float = 0.05, **stage: Any
) -> tuple[dict[str, Any], list[Any]]:
    models = {"small": {**PAID, **small}, "large": {**PAID, **large}, "third": scripted("third")}
    stages = [
        checked("first", "small", hedge=hedge, **stage),
        checked("second", "large"),
        {"name": "last", "ask": ["third"]},
    ]
    return models, stages


SLOW = {"delay": 600}
Holds = dict[
    str, str
]  # model → until when its call is held: "never", or another model is "asked" or "answered"
HEDGED, AFTER = {"small": "large asked"}, {"large": "small answered"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Holds, list[tuple[str, str, str | None]], str]] = {
    "the first is quick enough": (
        scripted("a"), scripted("b"), {}, [("first", "confident", None)], "a",
    ),
    "the second answers first": (
        scripted("a"), scripted("b"), {"small": "never"},
        [("first", "hedged", "second"), ("second", "confident", None)], "b",
    ),
    "the first answers while the second works": (
        scripted("a"), scripted("b"), HEDGED | {"large": "never"},
        [("second", "hedged", "first"), ("first", "confident", None)], "a",
    ),
    "the second is not sure, the first is": (
        scripted("a"), scripted("b", confidence=0.1), {"small": "large answered"},
        [("second", "below_threshold", "first"), ("first", "confident", None)], "a",
    ),
    "the first is not sure, the second is": (
        scripted("a", confidence=0.1), scripted("b"), HEDGED | AFTER,
        [("first", "below_threshold", "second"), ("second", "confident", None)], "b",
    ),
    "neither is sure": (
        scripted("a", confidence=0.1), scripted("b", confidence=0.2), HEDGED,
        [("first", "below_threshold", "second"), ("second", "below_threshold", "last"),
         ("last", "unchecked", None)], "third",
    ),
    "the first fails": (
        scripted(fail="down"), scripted("b"), HEDGED | AFTER,
        [("first", "no_draft", "second"), ("second", "confident", None)], "b",
    ),
}  # fmt: skip


def hold(monkeypatch: pytest.MonkeyPatch, holds: Holds) -> None:
    """Let the calls of scripted models wait for each other, so that no clock decides who is first."""
    happened: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
    ask = Scripted.ask

    async def held(self: Scripted, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        happened[f"{self.name} asked"].set()
        if self.name in holds:
            await happened[holds[self.name]].wait()
        try:
            return await ask(self, prompt, on_text)
        finally:
            happened[f"{self.name} answered"].set()

    monkeypatch.setattr(Scripted, "ask", held)


@pytest.mark.parametrize("case", CASES)
async def test_a_slow_stage_is_hedged(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large, holds, expected, text = CASES[case]
    hold(monkeypatch, holds)
    models, stages = hedged(small, large, 0.05 if holds else 600)
    async with load(tmp_path, models, stages, budgets={"day_usd": 1}) as cascade:
        result = await cascade.ainvoke("hello")
    assert (path(result), result.text, result.status) == (expected, text, "accepted")
    calls = [call for step in result.trace for call in step.calls]
    cancelled = [call for call in calls if call.error == "cancelled: hedged"]
    assert len(cancelled) == sum(rule == "hedged" for _, rule, _ in expected)
    assert all(call.cost_usd == pytest.approx(0.000101) for call in cancelled)
    book = BudgetBook(default_url())
    assert (book.balances()[0].spent, book.balances()[0].held) == (pytest.approx(result.cost_usd), 0.0)
    book.close()
    with TraceStore(default_url(), create=False) as store:
        assert store.get(result.run).trace == result.trace
    assert render_text(explain(result, load_graph(tmp_path / "graph.yaml").graph))


async def test_both_stages_are_priced_before_the_second_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, stages = hedged(scripted("a", delay=0.1), scripted("b"))
    for limits, first in (({"cost_usd": 0.0002}, "first"), ({"calls": 1}, "first"), ({"calls": 2}, "first")):
        hedges = limits.get("calls") == 2
        hold(monkeypatch, {"small": "never"} if hedges else {})
        async with load(tmp_path, models, stages, limits=limits) as cascade:
            result = await cascade.ainvoke("hello")
        assert [step.stage for step in result.trace] == (["first", "second"] if hedges else [first])
        assert result.cost_usd <= limits.get("cost_usd", 1)


async def test_stages_that_run_at_once_stream_nothing(tmp_path: Path) -> None:
    models = {"small": scripted("one two", delay=0.1), "large": scripted("three four", delay=30)}
    stages = [{"name": "first", "ask": ["small"], "hedge": 0.02}, LAST]
    async with load(tmp_path, models, stages) as cascade:
        events = [event async for event in cascade.astream("hello")]
    assert not any(isinstance(event, TextPiece) for event in events)
    assert isinstance(events[-1], Result)
    assert events[-1].text == "one two"


class Seen(Observer):
    """Notes which stages started and ended."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.both = asyncio.Event()

    def on_stage_start(self, run: str, stage: str) -> None:
        self.told.append(("stage_start", stage))
        if stage == "second":
            self.both.set()

    def on_stage_end(self, run: str, step: Step) -> None:
        self.told.append(("stage_end", step.stage))


async def test_observers_are_told_of_both_stages_of_a_hedge(tmp_path: Path) -> None:
    models, stages = hedged(scripted("a", **SLOW), scripted("b"))
    seen = Seen()
    async with Cascade.load(write(tmp_path, models, stages), observers=[seen]) as cascade:
        await cascade.ainvoke("hello")
    told = [
        ("stage_start", "first"),
        ("stage_start", "second"),
        ("stage_end", "first"),
        ("stage_end", "second"),
    ]
    assert seen.told == told


async def test_a_cancelled_run_records_both_stages(tmp_path: Path) -> None:
    models, stages = hedged(scripted("a", **SLOW), scripted("b", **SLOW))
    seen, board = Seen(), Board()
    async with Cascade.load(write(tmp_path, models, stages), observers=[board, seen]) as cascade:
        task = asyncio.create_task(cascade.ainvoke("hello"))
        await asyncio.wait_for(seen.both.wait(), 60)
        assert [active.stages for active in board.active()] == [("first", "second")]
        await asyncio.sleep(0)  # both stages are asking now
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with TraceStore(default_url(), create=False) as store:
        run = store.get(store.runs()[0].run)
    assert path(run) == [("first", "cancelled", None), ("second", "cancelled", None)]
    assert [call.error for step in run.trace for call in step.calls] == ["cancelled", "cancelled"]


PERSON = {"kind": "human"}
WRONG: list[tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any], str]] = [
    ({"a": scripted("x")}, [checked("s", "a", by="labels", early_exit=True)], {}, "confidence by logprob"),
    ({"a": scripted("x")}, [checked("s", "a", early_exit=True)], {"on_exhausted": "best"}, "cannot be the"),
    ({"a": scripted("x")}, [checked("s", "a", hedge=1)], {}, "no stage follows 's'"),
    (
        {"a": scripted("x"), "p": PERSON},
        [checked("s", "a", hedge=1), {"name": "t", "ask": ["p"]}], {}, "'p' is a person",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("models", "stages", "settings", "message"), WRONG)
def test_what_can_never_work_is_a_config_error(
    tmp_path: Path, models: dict[str, Any], stages: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_graph(write(tmp_path, models, stages, **settings))
