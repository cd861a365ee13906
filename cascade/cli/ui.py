"""`cascade ui`: run the trace viewer on this machine."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.errors import CascadeError
from cascade.extras import missing_package

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cascade.config.load import LoadedGraph
    from cascade.run import Cascade
    from cascade.serve.answers import Answers

_CONNECTIONS = 64  # of one address; a browser opens a few
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        help="Also answer to this name, a proxy's public one for instance; repeatable.", metavar="NAME"
    ),
]


def ui(
    graphs: Annotated[
        list[Path] | None, typer.Argument(help="Graph files to draw runs in.", metavar="[GRAPH]...")
    ] = None,
    trace_db: TraceDb = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is this machine only.")
    ] = "127.0.0.1",
    allow_host: AllowHost = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """View stored runs in a browser: how each was decided, and what it cost."""
    from cascade.config.load import load_graph
    from cascade.trace import TraceStore

    url = trace_url(trace_db)
    loaded = [load_graph(path) for path in graphs or []]
    try:
        from cascade.serve.app import create_app
    except ImportError as error:
        raise CascadeError(missing_package("cascade ui", error, "serve")) from error
    listener = listen(host, port)
    with listener, TraceStore(url, create=False) as store, ExitStack() as cascades:
        answers = _answers(loaded, url, cascades)
        url_host = f"[{host}]" if ":" in host else host
        page = f"http://{url_host}:{listener.getsockname()[1]}/"
        print(f"traces of {store.location} at {page}  (Ctrl-C ends)", flush=True)
        if open_ and _has_display():
            webbrowser.open(page)
        hosts = (host, socket.gethostname(), *(allow_host or ()))
        _serve(create_app(store, loaded, hosts=hosts, answers=answers), listener)


def _answers(loaded: Sequence[LoadedGraph], url: str, cascades: ExitStack) -> Answers:
    """Return what finishes waiting runs: a graph's cascade is opened when its first run is answered."""
    from cascade.serve.answers import Answers

    graphs = {graph.version: graph for graph in loaded}
    opening = threading.Lock()
    opened: dict[str, Cascade] = {}

    def cascade_of(version: str) -> Cascade:
        from cascade.run import Cascade

        with opening:
            if version not in opened:
                opened[version] = cascades.enter_context(Cascade.load(graphs[version], trace_db=url))
            return opened[version]

    return Answers(graphs, cascade_of)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        CascadeError: the address does not exist or is taken.
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
    """Return whether a browser window can open; otherwise a text browser would take over the terminal."""
    graphical = sys.platform in ("win32", "darwin")
    return graphical or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _serve(app: FastAPI, listener: socket.socket) -> None:
    from cascade.serve.connections import run_server

    # Everything loaded so far stays, so the garbage collector need not traverse it for every page.
    gc.freeze()
    try:
        run_server(app, listener, _CONNECTIONS, lifespan="off")
    except KeyboardInterrupt:  # the usual way to end it
        print()
