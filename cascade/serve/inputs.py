"""What the viewer's handlers read from a request, and how they answer with a page."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse

from cascade.config.load import LoadedGraph
from cascade.serve.answers import Answers
from cascade.serve.board import Board
from cascade.serve.pages import render
from cascade.trace import TraceStore

_MAX_GRADE = 64 * 1024  # bytes; a grade is small
MAX_ANSWER = 4 * 2**20  # bytes; a person's answer may have a million, and escapes make them more


@dataclass(frozen=True)
class Viewer:
    """What pages are made from: stored runs, active runs, and the known graphs by `name@digest`.

    `answers` takes what people answer to waiting runs.
    """

    store: TraceStore
    graphs: dict[str, LoadedGraph]
    board: Board
    answers: Answers


def viewer_of(request: Request) -> Viewer:
    """Return the viewer that `request` came to."""
    viewer: Viewer = request.app.state.viewer
    return viewer


async def read_body(request: Request, most: int = _MAX_GRADE) -> bytes:
    """Return the body.

    Raises:
        HTTPException: 413 if it is longer than `most` bytes.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise HTTPException(413, f"the body is longer than {most} bytes; send less")
    except ClientDisconnect:
        raise HTTPException(400, "the client has gone away") from None
    return bytes(body)


def root(request: Request) -> str:
    """Return the path where the viewer is mounted; its links begin with it."""
    return str(request.scope.get("root_path", ""))


def page(request: Request, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """Return the page of `template`, filled with `values`."""
    location = viewer_of(request).store.location
    here = request.url.path.removeprefix(root(request))
    shared = {"root": root(request), "here": here, "location": location}
    return HTMLResponse(render(template, **shared, **values), status)
