"""`cascade run`: one request, or a file of them, through a graph."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from cascade.cli.rows import Row, read_rows, result_row
from cascade.cli.summary import heading, line, print_summary, summarise
from cascade.errors import RequestError
from cascade.records import Result, check_text

if TYPE_CHECKING:
    from rich.progress import Progress

    from cascade.runtime import Cascade


def run(
    graph: Annotated[Path, typer.Argument(help="Graph file.", metavar="GRAPH")],
    text: Annotated[str | None, typer.Argument(help="One request.", metavar="[TEXT]")] = None,
    input: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="Requests: a .jsonl or .csv file with id, text, label?; - is stdin.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write result rows to this .jsonl file.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    local_only: Annotated[bool, typer.Option(help="Call no model that is not local.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight at once.")] = 8,
    trace_db: Annotated[str | None, typer.Option(help="Trace store: SQLAlchemy URL or file.")] = None,
) -> None:
    """Run one TEXT, or the rows of --input, through GRAPH."""
    if (text is None) == (input is None):
        raise RequestError("give either TEXT or --input; for one request: cascade run GRAPH 'your text'")
    rows = read_rows(input) if input is not None else [Row("1", check_text(text))]
    from cascade.runtime import Cascade

    with ExitStack() as stack:
        cascade = stack.enter_context(Cascade.load(graph, trace_db=trace_db))
        # Opened last: a wrong graph or trace store must not empty the file of an earlier run.
        sink = stack.enter_context(_open(output)) if output else None
        quiet = json_ or input is None
        results = cascade.run_sync(_all(cascade, rows, sink, quiet, local_only, concurrency))
        _report(rows, results, cascade, single=input is None, as_json=json_)


def _open(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", errors="backslashreplace")  # a lone surrogate stays JSON
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}; give a writable file for --output") from None


async def _all(
    cascade: Cascade, rows: list[Row], sink: TextIO | None, quiet: bool, local_only: bool, concurrency: int
) -> list[Result]:
    """Answer all rows, printing and writing each in input order as soon as those before it are done."""
    slots = asyncio.Semaphore(concurrency)

    async def answer(row: Row) -> Result:
        async with slots:
            return await cascade.ainvoke(row.text, local_only=local_only, metadata={"id": row.id})

    results: list[Result] = []
    if not quiet:
        print(heading())
    with _progress(hidden=len(rows) == 1) as bar:
        shown = bar.add_task(cascade.name, total=len(rows))
        async for row, result in _in_order(rows, answer, 4 * concurrency):
            results.append(result)
            if sink is not None:
                sink.write(json.dumps(result_row(row, result), ensure_ascii=False) + "\n")
            if not quiet:
                print(line(row, result))
            bar.advance(shown)
    return results


async def _in_order(
    rows: list[Row], answer: Callable[[Row], Coroutine[Any, Any, Result]], ahead: int
) -> AsyncIterator[tuple[Row, Result]]:
    """Yield each row with its answer, in order, at most `ahead` rows begun; the first error stops all."""
    begun: deque[tuple[Row, asyncio.Task[Result]]] = deque()
    todo = iter(rows)
    try:
        while True:
            begun.extend((row, asyncio.create_task(answer(row))) for row in islice(todo, ahead - len(begun)))
            if not begun:
                return
            row, task = begun[0]
            yield row, await task
            begun.popleft()
    finally:
        for _, task in begun:
            task.cancel()
        await asyncio.gather(*(task for _, task in begun), return_exceptions=True)


def _progress(*, hidden: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=hidden,
        # The bar keeps below the lines on a terminal; lines that go to a file must stay out of its way.
        redirect_stdout=sys.stdout.isatty(),
    )


def _report(rows: list[Row], results: list[Result], cascade: Cascade, *, single: bool, as_json: bool) -> None:
    if single and as_json:
        print(json.dumps(result_row(rows[0], results[0]), ensure_ascii=False))
    elif single:
        print(heading(), line(rows[0], results[0]), sep="\n")
        print(f"why: cascade trace explain {results[0].run}", file=sys.stderr)
    elif as_json:
        both = [result_row(row, result) for row, result in zip(rows, results, strict=True)]
        body: dict[str, Any] = {"summary": summarise(rows, results), "rows": both}
        print(json.dumps(body, ensure_ascii=False))
    else:
        print_summary(summarise(rows, results), cascade.trace_db)
