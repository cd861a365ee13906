"""`cascade draw`: a graph as a Mermaid flowchart or an SVG picture."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cascade.errors import ConfigError


class Format(StrEnum):
    """How a graph is drawn."""

    mermaid = "mermaid"
    svg = "svg"


def draw(
    graph: Annotated[Path, typer.Argument(help="Graph file.", metavar="GRAPH")],
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.mermaid,  # noqa: A002 - the option's name
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
) -> None:
    """Draw GRAPH: its stages, models, thresholds, and where a request goes next."""
    from cascade.config.draw import mermaid
    from cascade.config.drawing import svg
    from cascade.config.load import load_graph

    loaded = load_graph(graph).graph
    text = mermaid(loaded) if format is Format.mermaid else svg(loaded)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror}; give a file that can be written") from None
