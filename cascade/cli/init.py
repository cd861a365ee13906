"""`cascade init`: a shipped graph, or a whole project around a shipped graph or around rows of your own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.learn import STOPPED, progress, stopping
from cascade.cli.learn_options import Delta, LabelColumn, MaxRisk, Minutes, Seed, Size, TextColumn
from cascade.config.shipped import copy_shipped_graph, shipped_graphs
from cascade.errors import RequestError
from cascade.explain.formatting import printable


def init(
    name: Annotated[
        str | None, typer.Argument(help="Graph to copy; without it, list the graphs. With --data: DIR.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(help="New folder for a project around the graph.", metavar="[DIR]")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder to copy the graph alone into; created if it is missing.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled rows: learn an expert and make a project of it in DIR.")
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    size: Size = None,
    minutes: Minutes = 20.0,
    max_risk: MaxRisk = 0.02,
    delta: Delta = 0.1,
    seed: Seed = 0,
) -> None:
    """Copy the graph NAME with its files; or lay down a project that runs: cascade init --data FILE DIR."""
    if data is not None:
        if name is None or folder is not None or into is not None:
            raise RequestError("--data takes one new folder: cascade init --data FILE DIR")
        options: dict[str, object] = {"text": text_column, "label": label_column, "size": size}
        numbers = {"minutes": minutes, "max_risk": max_risk, "delta": delta}
        _learned(data, Path(name), options | numbers | {"seed": seed})
    elif text_column or label_column or size:
        raise RequestError("--text, --label and --size speak of --data FILE; give it, or leave them out")
    elif name is None:
        for shipped, graph in shipped_graphs().items():
            typer.echo(f"{shipped:10} {graph.description}")
        typer.echo("Copy one: cascade init NAME")
    elif folder is not None:
        if into is not None:
            raise RequestError("DIR and --into exclude each other: --into copies the graph alone")
        _shipped(name, folder)
    else:
        _copied(name, into or Path())


def _copied(name: str, into: Path) -> None:
    path, *others = copy_shipped_graph(name, into)
    files = f" and {len(others)} file{'s' if len(others) > 1 else ''} it refers to" if others else ""
    typer.echo(f"Copied {path}{files}.")
    typer.echo(f"Next: {shlex.join(['cascade', 'run', str(path), shipped_graphs()[name].request])}")


def _shipped(name: str, folder: Path) -> None:
    from cascade.lab.learning.project import shipped_project

    files = shipped_project(name, folder)
    typer.echo(f"Made {folder} with {len(files)} files; its README.md says how to use it.")
    typer.echo(f"Next: {shlex.join(['cascade', 'serve', str(folder / 'graphs' / f'{name}.yaml')])}")


def _learned(data: Path, folder: Path, options: dict[str, object]) -> None:
    from cascade.cli.cards import card_lines
    from cascade.lab import StoppedError
    from cascade.lab.learning.project import learned_project

    try:
        with stopping() as stopped, progress() as on_progress:
            made = learned_project(
                data, folder, stopped=stopped, on_progress=on_progress,
                on_note=lambda note: print(printable(note), file=sys.stderr), **options,  # type: ignore[arg-type]
            )  # fmt: skip
    except StoppedError as error:
        print(printable(f"{error}; nothing was made"), file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    for title, text in card_lines(made.card):
        typer.echo(printable(f"{title:<11}{text}"))
    typer.echo(f"Made {folder}; its README.md says how to use it.")
    typer.echo(f"Next: {shlex.join(['cascade', 'serve', str(folder / 'graphs' / made.graph.name)])}")
