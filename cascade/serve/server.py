"""The server: graphs as OpenAI-compatible models, their runs, metrics, health, and the viewer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cascade import __version__
from cascade.observers.metrics import Metrics
from cascade.run import Cascade
from cascade.serve.answers import Answers
from cascade.serve.app import create_app
from cascade.serve.board import Board
from cascade.serve.guard import HostGuardMiddleware
from cascade.serve.openai import chat, responses
from cascade.serve.openai.errors import ERRORS, ApiError
from cascade.serve.openai.keys import Keyring
from cascade.serve.openai.service import Administrating, Service, admit_admin, secret_of, service_of
from cascade.trace import TraceStore

_RUNS = "/v1/runs"  # the viewer's own JSON


def create_server(
    graphs: Mapping[str, Cascade],
    store: TraceStore,
    *,
    keys: Keyring | None = None,
    hosts: Collection[str] = (),
    board: Board | None = None,
    metrics: Metrics | None = None,
    in_flight: int = 64,
    queue: int = 256,
    on_start: Callable[[Service], None] | None = None,
) -> FastAPI:
    """Return the server as an ASGI application.

    Args:
        graphs: name → cascade; each is a model that clients may ask.
        store: where the runs of the graphs are kept. The caller closes it and the cascades.
        keys: API keys; None admits everyone who can reach the server.
        hosts: host names that are answered to besides those of the loopback interface; see
            `cascade.serve.guard.HostGuardMiddleware`.
        board: tracks active runs; pass it to the cascades as an observer.
        metrics: counts runs; pass it to the cascades as an observer.
        in_flight: maximum number of requests being answered.
        queue: maximum number of requests waiting; further ones are answered with 429.
        on_start: called with the service once the application has started.
    """
    service = Service(graphs, keys, in_flight=in_flight, queue=queue)
    metrics = metrics or Metrics()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if on_start is not None:
            on_start(service)
        yield

    app = FastAPI(
        title="cascade", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        openapi_url="/openapi.json",
    )  # fmt: skip
    for error, handler in _HANDLERS.items():
        app.add_exception_handler(error, handler)
    app.state.service = service
    app.include_router(chat.router)
    app.include_router(responses.router)
    app.add_api_route("/healthz", _health, methods=["GET"], tags=["Operation"], responses={503: {}})

    @app.get("/metrics", tags=["Operation"], response_class=Response, responses=ERRORS)
    def show_metrics(_who: Administrating) -> Response:
        """Return Prometheus metrics."""
        return metrics.response()

    versions = {cascade.version: cascade for cascade in graphs.values()}
    answers = Answers(versions, versions.__getitem__)
    loaded = [cascade.loaded for cascade in graphs.values()]
    viewer = create_app(store, loaded, hosts=hosts, board=board, answers=answers)
    app.mount("/", _Admin(viewer, app))
    app.add_middleware(HostGuardMiddleware, hosts=hosts, refuse=_foreign_host)
    return app


async def _health(request: Request) -> Response:
    """Report whether requests are accepted: 200, or 503 while the server stops."""
    service = service_of(request)
    status = "draining" if service.draining else "ok"
    return JSONResponse({"status": status, "graphs": list(service.graphs)}, 503 if service.draining else 200)


class _Admin:
    """Admits only administrators to the viewer if the server has keys."""

    def __init__(self, viewer: ASGIApp, app: FastAPI) -> None:
        self._viewer, self._app = viewer, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        service: Service = self._app.state.service
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith("/v1/") and not f"{path}/".startswith(f"{_RUNS}/"):
            unknown = ApiError(404, f"{scope['method']} {path} is not offered; /openapi.json lists what is")
            await unknown.response()(scope, receive, send)
            return
        if scope["type"] == "http" and (service.keys is not None or scope["method"] == "POST"):
            try:
                admit_admin(service, secret_of(Request(scope)))
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self._viewer(scope, receive, send)


def _foreign_host(refusal: str) -> ASGIApp:
    return ApiError(403, refusal, code="unknown_host").response()


def _api_error(_request: Request, error: Exception) -> Response:
    return error.response() if isinstance(error, ApiError) else ApiError(500, "unexpected").response()


def _invalid(_request: Request, error: Exception) -> Response:
    return ApiError(400, str(error)).response()


def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "unexpected"
    return ApiError(status, f"{request.method} {request.url.path}: {detail}").response()


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Response]] = {
    ApiError: _api_error,
    RequestValidationError: _invalid,
    HTTPException: _http_error,
}
