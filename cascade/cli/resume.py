"""`cascade resume`: give a waiting run the person's answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.endings import end
from cascade.cli.options import Json, TraceDb, print_question, print_why, trace_url
from cascade.cli.summary import heading, line, result_row
from cascade.errors import RequestError, UnknownRunError
from cascade.explain.formatting import json_text
from cascade.lab.tables.rows import Row

if TYPE_CHECKING:
    from cascade.run import Cascade


def resume(
    run: Annotated[
        str,
        typer.Argument(
            help="The waiting run's id, its first characters, or `last`: the newest that waits.",
            metavar="RUN",
        ),
    ],
    answer: Annotated[
        str | None,
        typer.Argument(
            help="The person's answer; without it, a terminal shows the question and asks.", metavar="ANSWER"
        ),
    ] = None,
    graph: Annotated[
        Path | None, typer.Option(help="Graph file; default: the one that the run started with.")
    ] = None,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """Finish the waiting run RUN, which another process may have started, with a person's ANSWER.

    A run that a server stopped between two stages needs its graph file (--graph) and no answer. The exit
    status is that of `cascade run`.
    """
    from cascade.run import Cascade

    name = _waiting(run, trace_url(trace_db))
    with Cascade.load(graph or _graph_of(name, trace_db), trace_db=trace_db) as cascade:
        if answer is None:
            answer = _ask(cascade, name)
        result = cascade.resume(name, answer)
    row = Row("1", result.request.text)
    if json_:
        print(json_text(result_row(row, result)))
    else:
        print(heading(), line(row, result), sep="\n")
        print_question(result, trace_db)
        print_why(result.run, trace_db)
    end(result)


def _waiting(run: str, url: str) -> str:
    """Return the full id of the run that is meant; one that the store does not know stays as it is.

    Raises:
        RequestError: `last` is asked for, and no run waits.
        UnknownRunError: several runs begin so.
    """
    from cascade.trace import TraceStore

    with TraceStore(url, create=False) as store:
        if run == "last":
            newest = store.runs(status="waiting", limit=1)
            if not newest:
                raise RequestError(f"no run is waiting in {store.location}; `cascade trace list` shows runs")
            return newest[0].run
        try:
            return store.get(run).run
        except UnknownRunError as error:
            if "begins several" in str(error):
                raise
            return run


def _ask(cascade: Cascade, run: str) -> str | None:
    """Show a person at a terminal what the run asks, and return what they type; None without either."""
    question = cascade.question(run)
    if question is None or not sys.stdin.isatty():
        return None
    from cascade.explain.formatting import clean_lines

    print(clean_lines(question), file=sys.stderr)
    return input("answer: ")


def _graph_of(run: str, trace_db: str | None) -> Path:
    from cascade.graph.checkpoints import open_checkpoints

    waiting = open_checkpoints(trace_url(trace_db))
    try:
        checkpoint = waiting.get_tuple({"configurable": {"thread_id": run}})
    finally:
        waiting.close()
    path = None if checkpoint is None else checkpoint.metadata.get("graph_file")
    if not isinstance(path, str):
        raise RequestError(
            f"run {run!r} is not waiting for an answer; `cascade trace list --status waiting` "
            "shows those that are; one that was stopped between two stages goes on with --graph FILE"
        )
    return Path(path)
