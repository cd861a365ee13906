"""`cascade resume`: give a waiting run the person's answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.options import Json, TraceDb, print_why, trace_url
from cascade.cli.summary import heading, line, result_row
from cascade.errors import RequestError
from cascade.lab.tables.rows import Row


def resume(
    run: Annotated[str, typer.Argument(help="The waiting run's id.", metavar="RUN")],
    answer: Annotated[
        str | None,
        typer.Argument(help="The person's answer; none if the run waits for none.", metavar="ANSWER"),
    ] = None,
    graph: Annotated[
        Path | None, typer.Option(help="Graph file; default: the one that the run started with.")
    ] = None,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """Finish the waiting run RUN, which another process may have started, with a person's ANSWER.

    A run that a server stopped between two stages needs its graph file (--graph) and no answer.
    """
    from cascade.run import Cascade

    with Cascade.load(graph or _graph_of(run, trace_db), trace_db=trace_db) as cascade:
        result = cascade.resume(run, answer)
    row = Row("1", result.request.text)
    if json_:
        print(json.dumps(result_row(row, result), ensure_ascii=False))
    else:
        print(heading(), line(row, result), sep="\n")
        print_why(result.run, trace_db)


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
            f"run {run!r} is not waiting for an answer; `cascade trace list` shows runs; "
            "one that was stopped between two stages goes on with --graph FILE"
        )
    return Path(path)
