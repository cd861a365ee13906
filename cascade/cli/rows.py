"""The rows that a command reads: their options, and how bad ones end the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cascade.errors import RequestError
from cascade.lab.tables import rows as library
from cascade.lab.tables.rows import Row

TextColumn = Annotated[
    str | None, typer.Option("--text", metavar="COL", help="Column of the requests; default: text.")
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
