"""Each fault of a remote model is one recorded, failed call and an escalation; nothing is paid twice."""

from __future__ import annotations

import random
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos.faulty import FAULTS, USAGE, Faulty
from scripting import checked, load, scripted

from cascade import Cascade, Result
from cascade.trace.budgets import BudgetBook
from cascade.trace.store import TraceStore, default_url

PRICE = {"input": 1.0, "output": 2.0}
PAID = (USAGE[0] * PRICE["input"] + USAGE[1] * PRICE["output"]) / 1e6
BROKEN = sorted(set(FAULTS) - {"ok"})
COMMON = [name for name in BROKEN if name not in ("huge_body", "deep_json")]


@pytest.fixture(scope="module")
def server() -> Iterator[Faulty]:
    with Faulty() as running:
        yield running


def graph(folder: Path, url: str, *, live: bool = False, **settings: Any) -> Cascade:
    """A remote stage that fails, and a local one that answers; `live` streams the remote one."""
    base = {"kind": "openai", "model": "m", "url": url, "key_env": None, "price": PRICE, "max_retries": 0}
    far = {**base, "timeout": 0.4, "max_tokens": 100, "breaker": None, **settings}
    first = {"name": "first", "ask": ["far"]} if live else checked("first", "far")
    stages = [first, {"name": "last", "ask": ["near"]}]
    return load(folder, {"far": far, "near": scripted("local")}, stages, budgets={"day_usd": 1000})


def spent() -> tuple[float, float]:
    book = BudgetBook(default_url())
    (balance,) = book.balances()
    book.close()
    return balance.spent, balance.held


@pytest.mark.parametrize("live", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", BROKEN)
async def test_a_fault_is_a_failed_call_and_an_escalation(
    tmp_path: Path, server: Faulty, fault: str, live: bool
) -> None:
    async with graph(tmp_path, server.url, live=live) as cascade:
        result = await cascade.ainvoke(f"{fault} please")
    first, last = result.trace
    (call,) = first.calls
    assert (first.decision.rule, last.decision.rule) == ("no_draft", "unchecked")
    assert (result.status, result.text) == ("accepted", "local")
    assert call.error is not None
    # On a busy machine the limit of the whole call may be over before the fault is noticed.
    assert "model 'far' at http://127.0.0.1" in call.error or "no answer within 0.4 s" in call.error
    assert (call.text, call.tokens_out) == ("", 0)
    assert spent() == (pytest.approx(result.cost_usd), 0.0)


@pytest.mark.parametrize("place", ["http://no-such-host.invalid/v1", "http://127.0.0.1:{free}/v1"])
async def test_a_server_that_cannot_be_reached_costs_nothing(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_names(host: str, *rest: Any, **more: Any) -> Any:
        if "invalid" in str(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *rest, **more)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", no_names)  # no resolver is asked in a test
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    async with graph(tmp_path, place.format(free=free), timeout=5) as cascade:
        result = await cascade.ainvoke("ok")
    assert (result.text, result.cost_usd) == ("local", 0.0)
    assert "cannot be reached" in (result.trace[0].calls[0].error or "")


async def test_retry_after_is_obeyed_within_the_time_out_and_no_longer(
    tmp_path: Path, server: Faulty
) -> None:
    before = server.asked["too_many"]
    async with graph(tmp_path, server.url, max_retries=2) as cascade:
        result = await cascade.ainvoke("too_many now")
    assert server.asked["too_many"] == before + 1  # 30 s are asked for, 0.4 s are there
    assert result.text == "local"
    assert result.seconds < 10


async def test_an_endless_answer_does_not_fill_the_memory(tmp_path: Path, server: Faulty) -> None:
    async with graph(tmp_path, server.url, timeout=20) as cascade:
        await cascade.ainvoke("ok first")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = await cascade.ainvoke("huge_body please")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "more than 16 MB" in (result.trace[0].calls[0].error or "")
    assert after - before < 200_000  # kB


async def flood(folder: Path, server: Faulty, requests: int) -> tuple[list[str], list[Result]]:
    """Ask `requests` at 64 in flight, half of them with a fault."""
    draw = random.Random(7)
    kinds = [draw.choice(["ok", draw.choice(COMMON)]) for _ in range(requests)]
    async with graph(folder, server.url, timeout=1.0) as cascade:
        texts = [f"{kind} number {number}" for number, kind in enumerate(kinds)]
        return kinds, await cascade.abatch(texts, concurrency=64)


def check(kinds: list[str], results: list[Result], asked: Counter[str]) -> None:
    """Nothing lost, nothing paid twice, every request answered with a reason for how."""
    assert len({result.run for result in results}) == len(kinds)
    for number, (kind, result) in enumerate(zip(kinds, results, strict=True)):
        assert result.request.text == f"{kind} number {number}"
        assert result.status == "accepted"
        calls = [call for step in result.trace for call in step.calls if call.model == "far"]
        assert len(calls) == 1
        if result.text == "fine":
            assert kind == "ok"
            assert result.cost_usd == pytest.approx(PAID)
        else:
            assert result.text == "local"
            assert calls[0].error or result.trace[0].decision.rule == "below_threshold"
            # A machine that is too busy may cut off a call that would have worked, and nothing else may.
            assert kind != "ok" or " within " in (calls[0].error or ""), calls[0].error
    # What the server saw is what was recorded. A connection that broke before its request got through, or a
    # request cut off by the time-out under load, is recorded and may not have been seen.
    assert sum(asked.values()) <= len(kinds)
    assert any(result.text == "fine" for result in results)
    total = sum(result.cost_usd for result in results)
    assert spent() == (pytest.approx(total, rel=1e-9), 0.0)
    with TraceStore(default_url(), create=False) as store:
        kept = store.runs(limit=len(kinds) + 1)
    assert {run.run for run in kept} == {result.run for result in results}
    assert sum(run.cost_usd for run in kept) == pytest.approx(total)


# Once in 10,000 requests a client's socket was closed by the garbage collector, with a warning; the likely
# cause is a call cut off at the moment when its connection opens. In the soak the open files stay flat.
UNCLOSED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@UNCLOSED
async def test_five_hundred_requests_through_a_server_that_breaks_half_of_them(tmp_path: Path) -> None:
    with Faulty() as server:
        kinds, results = await flood(tmp_path, server, 500)
        check(kinds, results, server.asked)


@UNCLOSED
@pytest.mark.slow
async def test_ten_thousand_requests_through_a_server_that_breaks_half_of_them(tmp_path: Path) -> None:
    with Faulty() as server:
        kinds, results = await flood(tmp_path, server, 10_000)
        check(kinds, results, server.asked)
