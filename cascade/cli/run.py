"""`cascade run`: one request, or a file of them, through a graph."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.batch import Output, open_output, restored_result
from cascade.cli.endings import end
from cascade.cli.options import Json, TraceDb, counting, print_question, print_why
from cascade.cli.rows import LabelColumn, TextColumn, read_rows, warn_of_labels
from cascade.cli.summary import heading, line, print_summary, result_row, summarise
from cascade.cli.warming import warm
from cascade.errors import RequestError
from cascade.explain.formatting import json_text
from cascade.lab.tables.rows import Row
from cascade.records import Result, check_text

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph
    from cascade.observers import Observer
    from cascade.run import Cascade


def run(
    graph: Annotated[Path, typer.Argument(help="Graph file.", metavar="GRAPH")],
    text: Annotated[str | None, typer.Argument(help="One request.", metavar="[TEXT]")] = None,
    input: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(help="Requests: .jsonl, .csv, … with text, id?, label?; - is stdin (JSONL)."),
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write result rows to this .jsonl file; continues a stopped batch."),
    ] = None,
    restart: Annotated[bool, typer.Option(help="Start a stopped batch over.")] = False,
    json_: Json = False,
    local_only: Annotated[bool, typer.Option(help="Call no model that is not local.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight at once.")] = 8,
    trace_db: TraceDb = None,
    watch: Annotated[bool, typer.Option("--watch", help="Draw the running graph on stderr.")] = False,
    otel: Annotated[bool, typer.Option(help="Send spans to the collector of OTEL_EXPORTER_OTLP_*.")] = False,
) -> None:
    """Run one TEXT, or the rows of --input, through GRAPH.

    Exit status for one TEXT: 0 answered, 3 abstained, 4 waiting for a person, 5 failed (no model could be
    asked, or all failed). For --input: 0 if every row was run, whatever came of it. 1 is an error, 2 a wrong
    call.
    """
    if (text is None) == (input is None):
        raise RequestError("give either TEXT or --input; for one request: cascade run GRAPH 'your text'")
    if input is None and (text_column or label_column):
        raise RequestError("--text and --label name columns of --input; leave them out for one TEXT")
    rows = read_rows(input, text_column, label_column) if input is not None else [Row("1", check_text(text))]
    from cascade.config.load import load_graph
    from cascade.run import Cascade

    loaded = load_graph(graph)
    if input is not None:
        warn_of_labels((row.label for row in rows), loaded, input)
    with ExitStack() as stack:
        observers = _observers(loaded, stack, watch=watch, otel=otel)
        cascade = stack.enter_context(Cascade.load(loaded, trace_db=trace_db, observers=observers))
        # Opened last, so that a wrong graph or trace store does not empty the file of an earlier run.
        batch = cascade.version + (" local only" if local_only else "")
        sink = stack.enter_context(open_output(output, rows, batch, restart=restart)) if output else None
        quiet = json_ or watch or input is None
        results = cascade.run_sync(
            _all(cascade, rows, sink, quiet, local_only, concurrency, hidden=watch or len(rows) == 1)
        )
        if sink is not None:
            sink.finish()
        _report(rows, results, cascade, single=input is None, as_json=json_)
        if input is None and not json_:
            print_question(results[0], trace_db)
            print_why(results[0].run, trace_db)
    if input is None:
        end(results[0])


def _observers(loaded: LoadedGraph, stack: ExitStack, *, watch: bool, otel: bool) -> list[Observer]:
    """Return the observers of the runs; `stack` closes them."""
    if otel:
        from cascade.observers.telemetry import export

        stack.callback(export())
    if not watch:
        return []
    from cascade.cli.watch import Watch

    return [stack.enter_context(Watch(loaded.graph))]


async def _all(
    cascade: Cascade,
    rows: list[Row],
    sink: Output | None,
    quiet: bool,
    local_only: bool,
    concurrency: int,
    *,
    hidden: bool,
) -> list[Result]:
    """Answer all rows. Print and write each in input order, as soon as all rows before it are done."""
    slots = asyncio.Semaphore(concurrency)

    async def answer(row: Row) -> Result:
        async with slots:
            return await cascade.ainvoke(row.text, local_only=local_only, metadata={"id": row.id})

    done = sink.done if sink is not None else []
    results = [restored_result(row, values) for row, values in zip(rows, done, strict=False)]
    if done:
        print(f"{len(done)} of {len(rows)} rows are done already; going on after them", file=sys.stderr)
    labelled = any(row.label is not None for row in rows)
    if len(rows) - len(done) > 1:
        await warm(cascade)
    if not quiet:
        print(heading(labelled=labelled))
    with counting(cascade.name, len(rows), len(done), hidden=hidden) as advance:
        async for row, result in _in_order(rows[len(done) :], answer, 4 * concurrency):
            results.append(result)
            if sink is not None:
                sink.write(result_row(row, result))
            if not quiet:
                print(line(row, result, labelled=labelled))
            advance()
    return results


async def _in_order(
    rows: list[Row], answer: Callable[[Row], Coroutine[Any, Any, Result]], ahead: int
) -> AsyncIterator[tuple[Row, Result]]:
    """Yield each row with its answer, in order, with at most `ahead` rows started. An error stops all."""
    started: deque[tuple[Row, asyncio.Task[Result]]] = deque()
    todo = iter(rows)
    try:
        while True:
            started.extend(
                (row, asyncio.create_task(answer(row))) for row in islice(todo, ahead - len(started))
            )
            if not started:
                return
            row, task = started[0]
            yield row, await task
            started.popleft()
    finally:
        for _, task in started:
            task.cancel()
        await asyncio.gather(*(task for _, task in started), return_exceptions=True)


def _report(rows: list[Row], results: list[Result], cascade: Cascade, *, single: bool, as_json: bool) -> None:
    if single and as_json:
        print(json_text(result_row(rows[0], results[0])))
    elif single:
        print(heading(), line(rows[0], results[0]), sep="\n")
    elif as_json:
        both = [result_row(row, result) for row, result in zip(rows, results, strict=True)]
        body: dict[str, Any] = {"summary": summarise(rows, results, cascade.baseline_calls), "rows": both}
        print(json_text(body))
    else:
        print_summary(summarise(rows, results, cascade.baseline_calls), cascade.trace_db)
