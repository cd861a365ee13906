"""Runs over models that fail, are busy, are too dear, or whose caller has gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from loopback import Answer, Gate, Loopback, Seen, chat, status, stream
from scripting import REMOTE, checked, load, scripted

from cascade import Cascade, ConfigError, Result, TextPiece
from cascade.explain import describe
from cascade.graph.ask import ask
from cascade.graph.breaker import Breaker
from cascade.graph.guard import EndpointGuard
from cascade.models import build_model
from cascade.models.scripted import ScriptedSettings
from cascade.records import Request
from cascade.trace import BudgetBook, TraceStore, default_url

PRICE = {"input": 1.0, "output": 2.0}
LAST = {"name": "last", "ask": ["large"]}


def remote(url: str, **settings: Any) -> dict[str, Any]:
    base = {"kind": "openai", "model": "m", "url": url, "key_env": None, "price": PRICE, "max_retries": 0}
    return {**base, "timeout": 5, "max_tokens": 100, **settings}


def said(text: str, pause: float = 0.0, **settings: Any) -> Callable[[Seen], Answer]:
    """An answer to a request that streams, and to one that does not."""

    def answer(seen: Seen) -> Answer:
        if seen.json.get("stream"):
            return stream([text], pause=pause / 4, **settings)
        return chat(text, pause=pause, **settings)

    return answer


def rules(result: Result) -> list[str]:
    return [step.decision.rule for step in result.trace]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stored(run: str) -> Result:
    with TraceStore(default_url(), create=False) as store:
        return store.get(run)


def spent() -> dict[str, tuple[float, float]]:
    book = BudgetBook(default_url())
    found = {balance.scope: (balance.spent, balance.held) for balance in book.balances()}
    book.close()
    return found


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of every breaker: its one number is the time."""
    now = [100.0]
    monkeypatch.setattr("cascade.graph.guard.Breaker", partial(Breaker, clock=lambda: now[0]))
    return now


async def test_a_model_that_keeps_failing_is_left_alone_and_tried_again(
    tmp_path: Path, passing: list[float]
) -> None:
    with Loopback() as server:
        server.answers = [*[status(500, "down")] * 3, said("fine")]
        models = {
            "far": remote(server.url, breaker={"failures": 3, "seconds": 10}),
            "large": scripted("fallback"),
        }
        async with load(tmp_path, models, [{"name": "first", "ask": ["far"]}, LAST]) as cascade:
            results = [await cascade.ainvoke("hello") for _ in range(5)]
            passing[0] += 10
            healed = await cascade.ainvoke("hello")
    assert [rules(result)[0] for result in results] == ["no_draft"] * 3 + ["breaker_open"] * 2
    assert {result.text for result in results} == {"fallback"}
    assert len(server.requests) == 4
    assert results[3].trace[0].calls == ()
    assert "open after 3 failures in a row" in (describe(results[3].trace[0].decision) or "")
    assert (rules(healed), healed.text) == (["unchecked"], "fine")


async def test_of_many_runs_at_once_one_is_the_probe(tmp_path: Path, passing: list[float]) -> None:
    with Loopback() as server:
        server.answers = [status(500, "down")]
        far = remote(server.url, timeout=120, breaker={"failures": 1, "seconds": 10})
        async with load(tmp_path, {"far": far, "large": scripted("b")}, [checked("first", "far"), LAST]) as c:
            await c.ainvoke("hello")
            passing[0] += 10
            gate = Gate(server, chat("fine", logprobs=[("fine", -0.01)]))
            left = {asyncio.create_task(c.ainvoke("hello")) for _ in range(20)}
            refused = await first(19, left)
            gate.open.set()
            (probe,) = await asyncio.gather(*left - refused)
    assert [rules(result) for result in (task.result() for task in refused)] == [
        ["breaker_open", "unchecked"]
    ] * 19
    assert (rules(probe), probe.text) == (["confident"], "fine")
    assert len(server.requests) == 2
    assert all("probe is under way" in (describe(t.result().trace[0].decision) or "") for t in refused)


async def first(count: int, tasks: set[asyncio.Task[Result]]) -> set[asyncio.Task[Result]]:
    """Return the tasks that are done once `count` of them are."""
    done: set[asyncio.Task[Result]] = set()
    while len(done) < count:
        more, _ = await asyncio.wait(tasks - done, timeout=120, return_when=asyncio.FIRST_COMPLETED)
        assert more, f"only {len(done)} of {count} have ended"
        done |= more
    return done


async def test_a_request_that_the_model_rightly_refuses_does_not_open_its_breaker(tmp_path: Path) -> None:
    with Loopback() as server:
        server.answers = [status(400, "too long"), said("", usage=(5, 1)), said("ok")]
        far = remote(server.url, breaker={"failures": 1})
        async with load(tmp_path, {"far": far}, [{"name": "first", "ask": ["far"]}]) as cascade:
            results = [await cascade.ainvoke("hello") for _ in range(3)]
    assert [rules(result) for result in results] == [["no_draft"], ["no_draft"], ["unchecked"]]


async def test_a_call_cut_off_by_the_run_does_not_open_the_breaker(tmp_path: Path) -> None:
    slow = scripted("late", delay=30, breaker={"failures": 1})
    async with load(tmp_path, {"m": slow}, [{"name": "s", "ask": ["m"]}], limits={"seconds": 0.05}) as c:
        results = [await c.ainvoke("hello") for _ in range(2)]
    assert [rules(result) for result in results] == [["no_draft"], ["no_draft"]]


async def test_equal_deployments_stand_in_for_each_other_and_every_attempt_is_recorded(
    tmp_path: Path,
) -> None:
    with Loopback() as down, Loopback() as up:
        down.answers = [status(503, "maintenance")]
        up.answers = [said("fine", usage=(10, 5))]
        others = [{"url": down.url, "key_env": None}, {"url": up.url, "key_env": None, "model": "m-2"}]
        far = remote(f"http://127.0.0.1:{free_port()}/v1", deployments=others, breaker={"failures": 2})
        async with load(tmp_path, {"far": far}, [{"name": "s", "ask": ["far"]}]) as cascade:
            results = [await cascade.ainvoke("hello") for _ in range(3)]
    calls = results[0].trace[0].calls
    assert [call.error is None for call in calls] == [False, False, True]
    assert [call.meta["endpoint"] for call in calls[1:]] == [down.url, up.url]
    assert "cannot be reached" in (calls[0].error or "")
    assert "503" in (calls[1].error or "")
    assert (results[0].text, results[0].cost_usd) == ("fine", pytest.approx(20e-6))
    assert up.requests[0].json["model"] == "m-2"
    # Two failures each: their breakers are open, and only the last is asked.
    assert [call.meta.get("refused") for call in results[2].trace[0].calls] == ["breaker_open"] * 2 + [None]
    assert len(down.requests) == 2


async def test_a_deployment_is_not_tried_where_the_limit_does_not_cover_a_lost_attempt(
    tmp_path: Path,
) -> None:
    with Loopback() as server:
        server.answers = [said("cut", finish_reason=None, usage=None)]
        far = remote(server.url, deployments=[{"url": server.url, "key_env": None}])
        stages = [checked("s", "far")]  # nothing is streamed
        async with load(tmp_path, {"far": far}, stages) as cascade:
            free = await cascade.ainvoke("hello")
        worst = free.trace[0].calls[0].cost_usd
        results = []
        for limits in ({"cost_usd": worst * 1.5}, {"cost_usd": worst * 2.001}, {"calls": 1}):
            async with load(tmp_path, {"far": far}, stages, limits=limits) as cascade:
                results.append(await cascade.ainvoke("hello"))
    assert [len(result.trace[0].calls) for result in (free, *results)] == [2, 1, 2, 1]


async def test_a_stream_that_broke_off_is_not_begun_again_elsewhere(tmp_path: Path) -> None:
    with Loopback() as server:
        server.answers = [stream(["Hel"], finish_reason=None, cut=True), stream(["other"])]
        far = remote(server.url, deployments=[{"url": server.url, "key_env": None}])
        async with load(tmp_path, {"far": far}, [{"name": "s", "ask": ["far"]}]) as cascade:
            events = [event async for event in cascade.astream("hello")]
    assert [event.text for event in events if isinstance(event, TextPiece)] == ["Hel"]
    assert len(server.requests) == 1


async def test_calls_wait_for_a_slot_and_a_full_queue_is_busy(tmp_path: Path) -> None:
    with Loopback() as server:
        gate = Gate(server, chat("yes", logprobs=[("yes", -0.01)]))
        far = remote(server.url, timeout=120, concurrency=2, queue=3)
        async with load(tmp_path, {"m": far}, [checked("s", "m")]) as cascade:
            tasks = {asyncio.create_task(cascade.ainvoke("hello")) for _ in range(8)}
            refused = await first(3, tasks)
            gate.open.set()
            others = await asyncio.gather(*tasks - refused)
    assert [result.text for result in others] == ["yes"] * 5
    for result in (task.result() for task in refused):
        assert result.status == "abstained"
        assert result.trace[0].calls[0].meta == {"refused": "busy"}
        assert "2 calls at work (concurrency) and 3 waiting (queue)" in (
            describe(result.trace[0].decision) or ""
        )


async def test_slots_are_shared_by_event_loops_and_given_back_by_cancelled_calls(tmp_path: Path) -> None:
    with Loopback() as server:
        gate = Gate(server, chat("yes", logprobs=[("yes", -0.01)]))
        far = remote(server.url, timeout=120, concurrency=1)
        async with load(tmp_path, {"m": far}, [checked("s", "m")]) as cascade:
            tasks = [asyncio.create_task(cascade.ainvoke("hello")) for _ in range(6)]
            assert await asyncio.to_thread(gate.asked.wait, 60)
            for task in tasks[::2]:  # one at work, or waiting, and two more
                task.cancel()
            gate.open.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            other = await asyncio.to_thread(cascade.invoke, "hello")
    assert [isinstance(item, Result) for item in found] == [False, True] * 3
    assert other.text == "yes"


async def test_a_call_that_waits_too_long_for_a_slot_is_busy_and_free() -> None:
    config = ScriptedSettings(kind="scripted", default="yes", concurrency=1, **REMOTE)
    model, guard = build_model("m", config, Path()), EndpointGuard("m", config)
    async with guard.slot():
        call, reply = await ask(model, Request(text="hello"), guard=guard, seconds=0.02)
    assert (reply, call.cost_usd, call.meta) == (None, 0.0, {"refused": "busy"})
    assert call.error == "model 'm' is busy: no free slot (concurrency) within 0.02 s"
    assert (await ask(model, Request(text="hello"), guard=guard))[1] is not None


BUDGET = {"day_usd": 0.001, "account_day_usd": 0.0002, "accounts": {"big": {"day_usd": 0.0005}}}


def paid(folder: Path, **settings: Any) -> Cascade:
    """A remote stage whose worst case is $0.000101 and whose answer costs $0.000003; then a local one."""
    models = {
        "far": scripted("yes", max_tokens=50, confidence=1.0, **REMOTE, **settings),
        "large": scripted("local"),
    }
    return load(folder, models, [checked("first", "far"), LAST], budgets=BUDGET)


async def test_budgets_are_reserved_before_a_call_and_settled_after_it(tmp_path: Path) -> None:
    async with paid(tmp_path) as cascade:
        results = [await cascade.ainvoke("hello", account="acme") for _ in range(60)]
    asked = [result for result in results if rules(result) == ["confident"]]
    refused = [result for result in results if rules(result) == ["over_budget", "unchecked"]]
    assert len(asked) + len(refused) == 60
    assert len(asked) == 34  # (0.0002 - 0.000101) / 0.000003, and one more
    assert {result.text for result in refused} == {"local"}
    assert "for account:acme" in (describe(refused[0].trace[0].decision) or "")
    total = sum(result.cost_usd for result in results)
    assert spent() == {"account:acme": (pytest.approx(total), 0.0), "graph:test": (pytest.approx(total), 0.0)}


async def test_many_runs_at_once_never_overspend_a_budget(tmp_path: Path) -> None:
    async with paid(tmp_path, delay=0.01) as cascade:
        results = await cascade.abatch(["hello"] * 200, concurrency=64, account="big")
    total = sum(result.cost_usd for result in results)
    assert spent()["account:big"] == (pytest.approx(total), 0.0)
    assert 0 < total <= 0.0005
    assert all(result.status == "accepted" for result in results)


def test_budgets_need_a_database(tmp_path: Path) -> None:
    paid(tmp_path).close()
    with pytest.raises(ConfigError, match="record=True"):
        Cascade.load(tmp_path / "graph.yaml", record=False)


async def test_a_budget_that_cannot_be_read_is_not_spent(tmp_path: Path) -> None:
    async with paid(tmp_path) as cascade:
        book = cascade._stores.book
        assert book is not None
        with book._engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE budget_days")
            connection.commit()
        result = await cascade.ainvoke("hello")
    assert rules(result) == ["over_budget", "unchecked"]
    assert "cannot be read" in (describe(result.trace[0].decision) or "")
