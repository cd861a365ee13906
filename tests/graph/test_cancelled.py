"""Runs whose caller goes away: stored, paid for and told of, whatever they were doing."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from pathlib import Path

import pytest
from gguf_maker import make_gguf
from scripting import REMOTE, checked, load, scripted, write

from cascade import Cascade, Result, TextPiece
from cascade.observers import Observer
from cascade.trace import BudgetBook, TraceStore, default_url

WAIT = 60  # seconds, for a machine that is busy


class Watch(Observer):
    """Notes that a stage has started, and how runs end."""

    def __init__(self) -> None:
        self.asking = asyncio.Event()
        self.ends: list[tuple[str, str]] = []

    def on_stage_start(self, run: str, stage: str) -> None:
        self.asking.set()

    def on_run_end(self, result: Result) -> None:
        self.ends.append(("run_end", result.status))

    def on_run_error(self, run: str) -> None:
        self.ends.append(("run_error", run))


def only_run() -> Result:
    with TraceStore(default_url(), create=False) as store:
        (summary,) = store.runs()
        return store.get(summary.run)


async def test_a_cancelled_run_is_stored_with_its_calls_and_paid_for(tmp_path: Path) -> None:
    models = {"far": scripted("yes", max_tokens=50, delay=600, **REMOTE)}
    path, watch = write(tmp_path, models, [checked("first", "far")], budgets={"day_usd": 0.001}), Watch()
    async with Cascade.load(path, observers=[watch]) as cascade:
        task = asyncio.create_task(cascade.ainvoke("hello"))
        await asyncio.wait_for(watch.asking.wait(), WAIT)
        book = BudgetBook(default_url())
        while not any(balance.held for balance in await asyncio.to_thread(book.balances)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # reserved: the call begins in the same turn
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    run = only_run()
    assert (run.status, run.rule, run.text) == ("cancelled", "cancelled", None)
    (call,) = run.trace[0].calls
    assert (call.error, call.cost_usd) == ("cancelled", pytest.approx(0.000101))
    assert [(each.spent, each.held) for each in book.balances()] == [(pytest.approx(0.000101), 0.0)]
    book.close()


async def test_a_run_whose_stream_is_left_is_cancelled_and_stored(tmp_path: Path) -> None:
    models = {"small": scripted("no", confidence=0.1), "large": scripted("late", delay=600)}
    stages = [checked("first", "small"), {"name": "last", "ask": ["large"]}]
    async with load(tmp_path, models, stages) as cascade:
        events = cascade.astream("hello")
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            async for _ in events:
                break
    run = only_run()
    assert (run.status, run.draft) == ("cancelled", "no")
    assert run.trace[0].decision.rule == "below_threshold"


async def test_a_call_that_streams_when_its_run_is_left_is_recorded(tmp_path: Path) -> None:
    make_gguf(tmp_path / "endless.gguf", says="on and", ends=False, n_ctx=8192)
    models = {"m": {"kind": "llamacpp", "path": "endless.gguf", "max_tokens": 8000}}
    async with load(tmp_path, models, [{"name": "only", "ask": ["m"]}]) as cascade:
        events = cascade.astream("hello")
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            async for event in events:
                assert isinstance(event, TextPiece)
                break
    run = only_run()
    assert (run.status, run.rule) == ("cancelled", "cancelled")
    (call,) = run.trace[0].calls
    assert call.error == "cancelled"


@pytest.mark.parametrize(("storing", "status"), [(False, "cancelled"), (True, "accepted")])
async def test_a_run_that_is_cancelled_again_and_again_is_stored_and_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storing: bool, status: str
) -> None:
    """As anyio does it under a server: in each turn of the loop until the task has ended."""
    models = {"m": scripted("late", delay=0 if storing else 600)}
    path, watch = write(tmp_path, models, [{"name": "s", "ask": ["m"]}]), Watch()
    submit, submitted = TraceStore.submit, asyncio.Event()

    def seen(self: TraceStore, result: Result) -> Future[None]:
        submitted.set()
        return submit(self, result)

    monkeypatch.setattr(TraceStore, "submit", seen)
    async with Cascade.load(path, observers=[watch]) as cascade:
        task = asyncio.create_task(cascade.ainvoke("hello"))
        await asyncio.wait_for((submitted if storing else watch.asking).wait(), WAIT)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
    assert watch.ends == [("run_end", status)]
    run = only_run()
    (call,) = run.trace[0].calls
    assert (run.status, call.error) == (status, None if storing else "cancelled")
