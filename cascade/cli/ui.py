"""`cascade ui`: the trace viewer, on this machine."""

from __future__ import annotations

import gc
import os
import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.errors import CascadeError
from cascade.extras import missing_package

if TYPE_CHECKING:
    from fastapi import FastAPI


def ui(
    graphs: Annotated[
        list[Path] | None, typer.Argument(help="Graph files to draw runs in.", metavar="[GRAPH]...")
    ] = None,
    trace_db: TraceDb = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Look at stored runs in a browser: why each was answered as it was, and what it cost."""
    from cascade.config.load import load_graph
    from cascade.trace import TraceStore

    loaded = [load_graph(path) for path in graphs or []]
    try:
        from cascade.serve.app import create_app
    except ImportError as error:
        raise CascadeError(missing_package("cascade ui", error, "serve")) from error
    listener = listen(host, port)
    with listener, TraceStore(trace_url(trace_db), create=False) as store:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/"
        print(f"traces of {store.location} at {url}  (Ctrl-C ends)", flush=True)
        if open_ and _has_display():
            webbrowser.open(url)
        _serve(create_app(store, loaded, hosts=(host, socket.gethostname())), listener)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        CascadeError: the address is not there, or taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        cause = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise CascadeError(
            f"cannot listen at {host} port {port}: {cause}; give another --host or --port"
        ) from error


def _has_display() -> bool:
    """Whether a browser window can open; without one a text browser would take the terminal."""
    graphical = sys.platform in ("win32", "darwin")
    return graphical or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _serve(app: FastAPI, listener: socket.socket) -> None:
    import uvicorn

    # What is loaded now stays: the collector need not go through it again for each page of many rows.
    gc.freeze()
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, lifespan="off"
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # the usual way to end it
        print()
