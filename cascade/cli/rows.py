"""The rows that a command reads: their options, and how bad ones end the command."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.errors import RequestError
from cascade.lab.tables import rows as library
from cascade.lab.tables.rows import Row

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph

TextColumn = Annotated[
    str | None, typer.Option("--text", metavar="COL", help="Column of the requests; default: text.")
]
PromptColumn = Annotated[
    str | None, typer.Option("--text", metavar="COL", help="Column of the requests; default: prompt.")
]
LabelColumn = Annotated[
    str | None, typer.Option("--label", metavar="COL", help="Column of the right answers; default: label.")
]


def read_rows(source: str | Path, text: str | None = None, label: str | None = None) -> list[Row]:
    """Read the rows of a file as `cascade.lab.tables.rows.read_rows` does; bad ones end the program.

    Raises:
        SystemExit: with status 1, after what is wrong was printed to standard error.
    """
    try:
        return library.read_rows(source, text, label)
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def warn_of_labels(labels: Iterable[str | None], loaded: LoadedGraph, source: str | Path) -> None:
    """Print to standard error which of the rows' labels no model of the graph can answer.

    Raises:
        RequestError: these are most of them.
    """
    from cascade.lab.tables.labels import asked_models, check_labels, label_set

    own = [label for label in labels if label]
    remark = check_labels(own, label_set(loaded, asked_models(loaded)), library.rows_name(source))
    if remark:
        print(f"note: {remark}", file=sys.stderr)
