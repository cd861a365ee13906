"""`cascade models`: list the local models of graphs, show their cards, load them, try out endpoints."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import Json, print_json
from cascade.cli.warming import load_weights
from cascade.errors import CascadeError, ConfigError
from cascade.explain.formatting import printable

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph
    from cascade.models.base import Model, Reply

app = typer.Typer(no_args_is_help=True, help="The models of graphs: local files and endpoints.")
Graphs = Annotated[list[Path], typer.Argument(help="Graph files.", metavar="GRAPH...")]
_STATUS = Path("/proc/self/status")
_QUESTION = "Answer with the word yes."


@app.command(name="list")
def list_(graphs: Graphs) -> None:
    """List the local models of graph files, with path and size."""
    from cascade.config.load import load_graph

    for graph in map(load_graph, graphs):
        for name, model in graph.graph.models.items():
            if (file := model.local_file(graph.base)) is not None:
                typer.echo(f"{graph.graph.name}: {name}: {file}")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="An expert's file, or bundled:NAME.", metavar="MODEL")],
    json_: Json = False,
) -> None:
    """Show what a GGUF file says of itself: its tasks with their labels, and the card that learning wrote."""
    from cascade.cli.cards import described, lines_of
    from cascade.config.references import local_model_path

    path = local_model_path(model, Path())
    if path is None:
        raise ConfigError(f"{model!r} is not downloaded yet; run a graph that uses it once")
    found = described(path)
    if json_:
        print_json(found)
        return
    for title, text in lines_of(found):
        typer.echo(f"{title:<11}{printable(text)}")


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


@app.command()
def probe(graphs: Graphs) -> None:
    """Ask every endpoint of graph files twice, whole and streamed, and say what it deviates in.

    The calls are real and cost what two short answers cost. For each endpoint: whether it answers, how the
    answer ended, whether tokens are counted and log-probabilities come, which fields it refuses, and what to
    write into the graph file because of that.
    """
    from cascade.config.load import load_graph

    problems = asyncio.run(_probe([load_graph(path) for path in graphs]))
    if problems:
        raise ConfigError(*problems)


async def _probe(graphs: list[LoadedGraph]) -> list[str]:
    from cascade.models import build_model
    from cascade.models.base import deployments

    problems: list[str] = []
    for graph in graphs:
        for name, config in graph.graph.models.items():
            if not config.is_endpoint:
                continue
            model = build_model(name, config, graph.base, graph.facts[name])
            for endpoint in deployments(model):
                problems += [f"{graph.graph.name}: {error}" for error in await _probe_one(graph, endpoint)]
            await model.aclose()
    return problems


async def _probe_one(graph: LoadedGraph, endpoint: Model) -> list[str]:
    """Ask one endpoint and print what it answered; return what went wrong."""
    from cascade.models.base import Prompt, charge

    where = f"{graph.graph.name}: {endpoint.name} at {getattr(endpoint, 'place', '?')}"
    for streamed in (False, True):
        start = time.perf_counter()
        try:
            reply = await endpoint.ask(Prompt(_QUESTION), (lambda _: None) if streamed else None)
        except CascadeError as error:
            return [str(error)]
        seconds, dollars = time.perf_counter() - start, charge(endpoint.price, reply)
        how = "streamed" if streamed else "whole"
        typer.echo(f"{where}: {how}: {', '.join(_noticed(reply))}; {seconds:.2f} s, ${dollars:.6f}")
    if refused := reply.meta.get("left_out"):
        typer.echo(f"{where}: write omit: [{', '.join(refused)}]")
    if not reply.tokens:
        typer.echo(f"{where}: no confidence by logprob here; write logprobs: false")
    return []


def _noticed(reply: Reply) -> list[str]:
    meta = reply.meta
    tokens = f"{len(reply.tokens)} log-probabilities" if reply.tokens else ""
    notes = [
        f"ended by {meta.get('server_finish_reason', meta.get('finish_reason'))}",
        f"usage {meta['usage']}" if "usage" in meta else f"{reply.tokens_in} + {reply.tokens_out} tokens",
        tokens or f"log-probabilities {meta.get('logprobs', 'missing')}",
        "thinking" if "thinking" in meta else "",
        f"refuses {', '.join(meta['left_out'])}" if "left_out" in meta else "",
        "ignores max_tokens" if "over_max_tokens" in meta else "",
    ]
    return list(filter(None, notes))


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
