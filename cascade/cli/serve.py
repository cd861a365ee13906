"""`cascade serve`: graphs behind an OpenAI-compatible HTTP server."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.cli.ui import AllowHost, listen
from cascade.errors import CascadeError, ConfigError
from cascade.extras import missing_package

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cascade.serve.openai.service import Service

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    graphs: Annotated[list[Path], typer.Argument(help="Graph files; each is a model.", metavar="GRAPH...")],
    trace_db: TraceDb = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is this machine only.")
    ] = "127.0.0.1",
    allow_host: AllowHost = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="Key file (`cascade keys add`).")] = None,
    insecure: Annotated[bool, typer.Option(help="Listen beyond this machine without keys.")] = False,
    in_flight: Annotated[int, typer.Option(min=1, help="Maximum requests at work.")] = 64,
    queue: Annotated[int, typer.Option(min=0, help="Maximum requests that wait; any more get a 429.")] = 256,
    connections: Annotated[int, typer.Option(min=1, help="Maximum connections of one address.")] = 512,
    drain: Annotated[float, typer.Option(min=0, help="Seconds for running requests after SIGTERM.")] = 30,
    otel: Annotated[bool, typer.Option(help="Send spans to the collector of OTEL_EXPORTER_OTLP_*.")] = False,
) -> None:
    """Serve graphs as OpenAI-compatible models, with their runs, metrics and the viewer."""
    if keys is None and host not in _LOOPBACK and not insecure:
        raise ConfigError(
            f"--host {host} can be reached by others and there are no keys; give --keys FILE, or --insecure"
        )
    try:
        from cascade.observers.metrics import Metrics
        from cascade.serve.board import Board
        from cascade.serve.openai.keys import Keyring
        from cascade.serve.server import create_server
    except ImportError as error:
        raise CascadeError(missing_package("cascade serve", error, "serve")) from error
    from cascade.observers.telemetry import export
    from cascade.run import Cascade
    from cascade.trace import TraceStore

    url = trace_url(trace_db)
    ring = None if keys is None else Keyring(keys)
    board, metrics = Board(), Metrics()
    with ExitStack() as stack:
        if otel:
            stack.callback(export())
        served = {}
        for path in graphs:
            granted = None if ring is None else ring.day_usd
            cascade = stack.enter_context(
                Cascade.load(path, trace_db=url, observers=[board, metrics], granted=granted)
            )
            if cascade.name in served:
                raise ConfigError(f"{path}: a graph {cascade.name!r} is served already; rename one")
            served[cascade.name] = cascade
        store = stack.enter_context(TraceStore(url, create=False))
        listener = stack.enter_context(listen(host, port))
        on_start = partial(_drain_on_sigterm, drain)
        hosts = (host, socket.gethostname(), *(allow_host or ()))
        app = create_server(
            served, store, keys=ring, board=board, metrics=metrics, hosts=hosts,
            in_flight=in_flight, queue=queue, on_start=on_start,
        )  # fmt: skip
        url_host = f"[{host}]" if ":" in host else host
        address = f"http://{url_host}:{listener.getsockname()[1]}"
        print(f"serving {', '.join(served)} at {address}/v1  (viewer {address}/, Ctrl-C ends)", flush=True)
        _run(app, listener, connections, drain)


def _drain_on_sigterm(seconds: float, service: Service) -> None:
    """Take no more requests after SIGTERM. Uvicorn's own handler then waits for those at work."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def stop(signum: int, frame: object, before: object = before) -> None:
            loop.call_soon_threadsafe(service.stop, seconds)
            if callable(before):
                before(signum, frame)

        signal.signal(number, stop)


def _run(app: FastAPI, listener: socket.socket, connections: int, drain: float) -> None:
    from cascade.serve.connections import run_server

    gc.freeze()  # as in `cascade ui`
    # Uvicorn raises SIGTERM again after draining: exit normally, so that the stores are closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run_server(app, listener, connections, timeout_graceful_shutdown=max(1, round(drain)))
