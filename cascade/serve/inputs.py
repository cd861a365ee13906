"""What the viewer's handlers read from a request, and how they answer with a page."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from cascade.config.load import LoadedGraph
from cascade.serve.board import Board
from cascade.serve.pages import render
from cascade.trace import TraceStore

_MAX_BODY = 64 * 1024  # bytes; a grade is small


@dataclass(frozen=True)
class Viewer:
    """What pages are made from: stored runs, active runs, and the known graphs by `name@digest`."""

    store: TraceStore
    graphs: dict[str, LoadedGraph]
    board: Board


def viewer_of(request: Request) -> Viewer:
    """Return the viewer that `request` came to."""
    viewer: Viewer = request.app.state.viewer
    return viewer


async def read_body(request: Request) -> bytes:
    """Return the body.

    Raises:
        HTTPException: 413 if it is longer than a grade can be.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f"the body is longer than {_MAX_BODY} bytes; a grade is shorter")
    return body


def root(request: Request) -> str:
    """Return the path where the viewer is mounted; its links begin with it."""
    return str(request.scope.get("root_path", ""))


def page(request: Request, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """Return the page of `template`, filled with `values`."""
    location = viewer_of(request).store.location
    here = request.url.path.removeprefix(root(request))
    shared = {"root": root(request), "here": here, "location": location}
    return HTMLResponse(render(template, **shared, **values), status)
