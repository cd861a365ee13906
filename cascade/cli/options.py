"""Options and output that several commands share."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from cascade.records import Result

_MAX_QUESTION = 2000  # characters
TraceDb = Annotated[
    str | None,
    typer.Option(
        help="Trace store: SQLAlchemy URL or file; default: CASCADE_TRACE_DB, else your data folder."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def trace_url(trace_db: str | None) -> str:
    """Return the trace store's URL: what --trace-db says, else the default."""
    from cascade.trace import default_url

    return default_url() if trace_db is None else trace_db


def new_progress(**settings: Any) -> Progress:
    """Return a progress bar on standard error that counts rows; `settings` are Rich's."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True, **settings)


@contextmanager
def counting(title: str, total: int, done: int, *, hidden: bool) -> Iterator[Callable[[], object]]:
    """Yield what counts one more row; a progress bar shows it unless `hidden`."""
    if hidden:
        yield lambda: None
        return
    # The bar stays below the lines on a terminal, and must not touch lines that go to a file.
    with new_progress(redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda: bar.advance(task)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (rows done, rows in all) that shows a progress bar from its first call on."""
    bar = new_progress()

    def on_progress(done: int, total: int) -> None:
        if not bar.tasks:
            bar.add_task(title, total=total)
            bar.start()
        bar.update(bar.task_ids[0], completed=done)

    try:
        yield on_progress
    finally:
        if bar.tasks:  # one that never began would print an empty line
            bar.stop()


def print_why(run: str, trace_db: str | None) -> None:
    """Print to standard error the command that explains `run`; `trace_db` is what the user gave."""
    print(f"why: cascade trace explain {run}{_where(trace_db)}", file=sys.stderr)


def _where(trace_db: str | None) -> str:
    """Return the option that names the trace store, for a command; none of a URL that may hold a password."""
    return f" --trace-db {shlex.quote(trace_db)}" if trace_db and "@" not in trace_db else ""


def print_question(result: Result, trace_db: str | None) -> None:
    """Print what a waiting run asks a person, and the command that answers; nothing of any other run."""
    if result.status != "waiting":
        return
    from cascade.explain.formatting import clean

    answer = "" if result.question is None else " 'ANSWER'"
    if result.question is not None:
        print(f"asks:    {clean(result.question, _MAX_QUESTION)}")
    print(f"go on:   cascade resume {result.run}{answer}{_where(trace_db)}")


def print_json(value: object) -> None:
    """Print `value` as JSON."""
    from cascade.explain.formatting import json_text

    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    # Stored texts may hold anything, so escape what the terminal cannot print.
    print(json_text(_finite(value), indent=2) if unicode else json.dumps(_finite(value), indent=2))


def _finite(value: object) -> object:
    """Replace infinities and NaN, which JSON does not have, by null."""
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
