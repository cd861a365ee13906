"""Following runs: the board of those at work, their event streams, and news from the store."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from runs_maker import HAIKU, quick, run, step

from cascade.records import Request
from cascade.serve import live
from cascade.serve.app import create_app
from cascade.serve.board import Board
from cascade.trace import TraceStore

HERE = "http://127.0.0.1:8765"
ASKED = Request(text="Where is <b>my</b> card?")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(str(tmp_path / "runs.db")) as store:
        yield store


def events(text: str) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in text.strip().split("\n\n") if block.startswith("event:")]
    return [
        (block[0].removeprefix("event: "), json.loads(block[1].removeprefix("data: "))) for block in blocks
    ]


def test_the_board_knows_what_is_at_work() -> None:
    board = Board()
    board.on_run_start("01AA", "support@1", ASKED)
    board.on_stage_start("01AA", "first")
    first = board.find("01AA")
    assert first is not None
    assert (first.stages, first.trace) == (("first",), ())
    board.on_stage_end("01AA", step("first", "below_threshold", HAIKU, confidence=0.5, to="last"))
    later = board.find("01AA")
    assert later is not None
    assert [done.stage for done in later.trace] == ["first"]
    assert first.trace == ()  # what a page already holds does not change under it
    board.on_run_end(run("01AA"))
    board.on_run_error("01AA")
    assert board.active() == []


def test_the_live_pages_show_a_run_without_scripts(store: TraceStore) -> None:
    board = Board()
    viewer = TestClient(create_app(store, board=board), base_url=HERE)
    assert "Nothing is at work" in viewer.get("/live").text
    board.on_run_start("01AA", "support@1", ASKED)
    board.on_stage_start("01AA", "first")
    assert "Where is &lt;b&gt;my&lt;/b&gt; card?" in viewer.get("/live").text
    assert "<strong>first</strong>: at work" in viewer.get("/live/01AA").text
    store.write(quick("01AA"))
    board.on_run_end(quick("01AA"))
    gone = viewer.get("/live/01AA", follow_redirects=False)
    assert (gone.status_code, gone.headers["location"]) == (303, "/runs/01AA")


async def test_a_follower_sees_each_stage_and_the_end(store: TraceStore) -> None:
    board = Board()
    app = create_app(store, board=board)
    board.on_run_start("01AA", "support@1", ASKED)

    def work() -> None:  # a run on another thread, as with `Cascade.invoke`
        board.on_stage_start("01AA", "first")
        board.on_stage_end("01AA", step("first", "below_threshold", HAIKU, confidence=0.5, to="last"))
        board.on_run_end(run("01AA"))

    async def follow() -> str:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url=HERE) as client:
            response = await client.get("/live/01AA/events")
            assert response.headers["content-type"].startswith("text/event-stream")
            return response.text

    following = asyncio.create_task(follow())
    while not board._listeners:  # noqa: ASYNC110 - until the follower is there
        await asyncio.sleep(0.01)
    thread = threading.Thread(target=work)
    thread.start()
    seen = events(await asyncio.wait_for(following, 10))
    thread.join()
    assert seen[0][0] == "shown"
    assert seen[-1] == ("ended", {"run": "01AA"})


async def test_new_runs_in_the_store_are_announced(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.01)
    store.write(quick("01AA"))
    transport = httpx2.ASGITransport(app=create_app(store))
    async with httpx2.AsyncClient(transport=transport, base_url=HERE) as client:
        following = asyncio.create_task(client.get("/new-events", params={"after": "01AA"}))
        await asyncio.sleep(0.05)
        assert not following.done()
        await asyncio.to_thread(store.write, quick("01AB"))
        response = await asyncio.wait_for(following, 10)
    assert events(response.text) == [("new", {"run": "01AB"})]


async def test_a_waiting_run_is_followed_to_its_end(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.01)
    store.write(run("01AA", status="waiting", rule=None, text=None))
    transport = httpx2.ASGITransport(app=create_app(store))
    async with httpx2.AsyncClient(transport=transport, base_url=HERE) as client:
        following = asyncio.create_task(client.get("/runs/01AA/events"))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(store.write, run("01AA"))
        response = await asyncio.wait_for(following, 10)
    assert events(response.text)[-1] == ("ended", {"run": "01AA"})


def test_following_an_unknown_run_is_an_error_page(store: TraceStore) -> None:
    viewer = TestClient(create_app(store), base_url=HERE)
    assert viewer.get("/runs/01ZZ/events").status_code == 404
    assert viewer.get("/live/01ZZ").status_code == 404  # by way of the run's page
