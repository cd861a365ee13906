"""What handlers get with a request: the viewer it came to, and its body."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from cascade.config.load import LoadedGraph
from cascade.serve.board import Board
from cascade.serve.pages import render
from cascade.trace import TraceStore

_MOST = 64 * 1024  # bytes of a body; a grade is small


@dataclass(frozen=True)
class Viewer:
    """What the pages are made from: the runs, stored and at work, and the known graphs by `name@digest`."""

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
        if len(body) > _MOST:
            raise HTTPException(413, f"the body is longer than {_MOST} bytes; a grade is shorter")
    return body


def root(request: Request) -> str:
    """Return where the viewer is mounted: the beginning of its links."""
    return str(request.scope.get("root_path", ""))


def page(request: Request, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """Return the page that `template` makes of `values`."""
    place = viewer_of(request).store.location
    here = request.url.path.removeprefix(root(request))
    return HTMLResponse(render(template, root=root(request), here=here, place=place, **values), status)
