"""Options and output that the commands about stored runs share."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Annotated

import typer

TraceDb = Annotated[
    str | None,
    typer.Option(
        help="Trace store: SQLAlchemy URL or file; default: CASCADE_TRACE_DB, else your data folder."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def trace_url(given: str | None) -> str:
    """Return where the traces are: what --trace-db says, else the default."""
    from cascade.trace import default_url

    return default_url() if given is None else given


def print_why(run: str, trace_db: str | None) -> None:
    """Say on standard error how to ask why `run` was answered as it was; `trace_db` is what the user gave."""
    # A URL may hold a password, which does not belong into a log.
    where = f" --trace-db {shlex.quote(trace_db)}" if trace_db and "@" not in trace_db else ""
    print(f"why: cascade trace explain {run}{where}", file=sys.stderr)


def print_json(value: object) -> None:
    """Print `value` as JSON."""
    # Escaped where the terminal could not print it: a stored text may hold anything.
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(_finite(value), ensure_ascii=not unicode, indent=2))


def _finite(value: object) -> object:
    """JSON has no infinity: null in its place."""
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
