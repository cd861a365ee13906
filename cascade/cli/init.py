"""`cascade init`: copy a graph that comes with the package."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cascade.config.shipped import copy_shipped_graph, shipped_graphs


def init(
    name: Annotated[str | None, typer.Argument(help="Graph to copy; without it, list the graphs.")] = None,
    into: Annotated[Path, typer.Option(help="Folder to copy into; created if it is missing.")] = Path(),
) -> None:
    """Copy the graph NAME and the files that it refers to, so that you can run and change it."""
    graphs = shipped_graphs()
    if name is None:
        for shipped, graph in graphs.items():
            typer.echo(f"{shipped:10} {graph.description}")
        typer.echo("Copy one: cascade init NAME")
        return
    path, *others = copy_shipped_graph(name, into)
    files = f" and {len(others)} file{'s' if len(others) > 1 else ''} it refers to" if others else ""
    typer.echo(f"Copied {path}{files}.")
    typer.echo(f"Next: {shlex.join(['cascade', 'run', str(path), graphs[name].request])}")
