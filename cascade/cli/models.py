"""`cascade models`: list the local models of graphs, or load them once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.warming import load_weights
from cascade.errors import CascadeError, ConfigError

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph

app = typer.Typer(no_args_is_help=True, help="The local models of graphs.")
Graphs = Annotated[list[Path], typer.Argument(help="Graph files.", metavar="GRAPH...")]
_STATUS = Path("/proc/self/status")


@app.command(name="list")
def list_(graphs: Graphs) -> None:
    """List the local models of graph files, with path and size."""
    from cascade.config.load import load_graph

    for graph in map(load_graph, graphs):
        for name, model in graph.graph.models.items():
            if (file := model.local_file(graph.base)) is not None:
                typer.echo(f"{graph.graph.name}: {name}: {file}")


@app.command()
def warm(graphs: Graphs) -> None:
    """Load and ask every local model of graph files, which checks the files and fills the page cache.

    Prints the seconds of the first call (loading included) and of the next one (one forward pass), and the
    memory of this process after both.
    """
    from cascade.config.load import load_graph

    problems = asyncio.run(_warm([load_graph(path) for path in graphs]))
    if problems:
        raise ConfigError(*problems)


async def _warm(graphs: list[LoadedGraph]) -> list[str]:
    from cascade.models import build_model

    problems: list[str] = []
    loaded = []
    for graph in graphs:
        for name, config in graph.graph.models.items():
            if config.local_file(graph.base) is None:
                continue
            model = build_model(name, config, graph.base, graph.facts[name])
            loaded.append(model)  # kept until the end, because models share files
            seconds = []
            try:
                for _ in range(2):
                    start = time.perf_counter()
                    await load_weights(model)
                    seconds.append(time.perf_counter() - start)
            except CascadeError as error:
                problems.append(f"{graph.graph.name}: {error}")
                continue
            typer.echo(
                f"{graph.graph.name}: {name}: first call {seconds[0]:.2f} s, next {1e3 * seconds[1]:.1f} ms, "
                f"memory of the process {_resident()}"
            )
    for model in loaded:
        await model.aclose()
    return problems


def _resident() -> str:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:  # not on Linux
        return "unknown"
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return f"{kib / 1024:.0f} MiB"
