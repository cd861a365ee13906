"""What handlers get with a request: the viewer it came to, and its body."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from cascade.config.load import LoadedGraph
from cascade.trace.store import TraceStore

_MOST = 64 * 1024  # bytes of a body; a grade is small


@dataclass(frozen=True)
class Viewer:
    """What the pages are made from: the runs, and the graph files that are known by `name@digest`."""

    store: TraceStore
    graphs: dict[str, LoadedGraph]


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
