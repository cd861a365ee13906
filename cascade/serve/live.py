"""Pages and event streams that follow runs: active ones by stage, and new ones as they are stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from cascade.records import Result
from cascade.serve.board import ActiveRun
from cascade.serve.inputs import Viewer, page, root, viewer_of
from cascade.serve.pages import render
from cascade.serve.path import picture

POLL_SECONDS = 1.0  # between two looks into the store
_BEAT_SECONDS = 15.0  # how often a comment keeps proxies from closing a quiet stream

router = APIRouter(default_response_class=HTMLResponse)


@router.get("/live")
def live_page(request: HttpRequest) -> Response:
    """Show the runs at work."""
    return page(request, "live.html", rows=_rows(viewer_of(request)), run=None)


@router.get("/live/{run}")
def live_run(request: HttpRequest, run: str) -> Response:
    """Show a run at work; redirect to its own page once it has ended."""
    viewer = viewer_of(request)
    active = viewer.board.find(run)
    if active is None:
        return RedirectResponse(f"{root(request)}/runs/{run}", 303)
    return page(request, "live.html", rows=[], run=active, now=_fragment(viewer, active))


@router.get("/live/{run}/events")
def follow_run(request: HttpRequest, run: str) -> Response:
    """Stream the progress of a run at work: `shown` with new HTML, then `ended`."""
    viewer = viewer_of(request)

    async def events() -> AsyncIterator[str]:
        with viewer.board.changes() as changed:
            while (active := viewer.board.find(run)) is not None:
                yield _event("shown", {"html": _fragment(viewer, active)})
                if not await _wait_for_change(changed):
                    yield ": at work\n\n"
        yield _event("ended", {"run": run})

    return _stream(events())


@router.get("/live-events")
def follow_all(request: HttpRequest) -> Response:
    """Stream the list of the runs at work: `shown` with new HTML."""
    viewer = viewer_of(request)

    async def events() -> AsyncIterator[str]:
        with viewer.board.changes() as changed:
            while True:
                yield _event("shown", {"html": _list(request, viewer)})
                while not await _wait_for_change(changed):
                    yield ": at work\n\n"

    return _stream(events())


@router.get("/new-events")
def follow_store(request: HttpRequest, after: str = "") -> Response:
    """Stream `new` once a run newer than `after` is in the store, whichever process made it."""
    store = viewer_of(request).store

    async def events() -> AsyncIterator[str]:
        waited = 0.0
        while True:
            newest = await run_in_threadpool(store.runs, limit=1)
            if newest and newest[0].run != after:
                yield _event("new", {"run": newest[0].run})
                return
            await asyncio.sleep(POLL_SECONDS)
            waited += POLL_SECONDS
            if waited >= _BEAT_SECONDS:
                waited = 0.0
                yield ": nothing new\n\n"

    return _stream(events())


@router.get("/runs/{run}/events")
def follow_waiting(request: HttpRequest, run: str) -> Response:
    """Stream `ended` once a run that waits for a person has its answer."""
    store = viewer_of(request).store
    store.get(run)  # an unknown one is an error page, not a broken stream

    async def events() -> AsyncIterator[str]:
        while (await run_in_threadpool(store.get, run)).status == "waiting":
            yield ": waiting\n\n"
            await asyncio.sleep(POLL_SECONDS)
        yield _event("ended", {"run": run})

    return _stream(events())


async def _wait_for_change(changed: asyncio.Event) -> bool:
    """Wait for the next change; return False if there is none for a while."""
    try:
        await asyncio.wait_for(changed.wait(), _BEAT_SECONDS)
    except TimeoutError:
        return False
    changed.clear()
    return True


def _rows(viewer: Viewer) -> list[ActiveRun]:
    return viewer.board.active()


def _list(request: HttpRequest, viewer: Viewer) -> str:
    return render("live_list.html", root=root(request), rows=_rows(viewer))


def _fragment(viewer: Viewer, active: ActiveRun) -> Markup:
    """Return a run at work as HTML: its path so far and the stage being asked."""
    loaded = viewer.graphs.get(active.graph)
    so_far = Result(
        run=active.run, graph=active.graph, status="waiting", request=active.request, trace=active.trace
    )
    drawn = picture(so_far, loaded.graph) if loaded else None
    return Markup(render("live_run.html", run=active, drawn=drawn))  # noqa: S704 - a template's output


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _stream(events: AsyncIterator[str]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
