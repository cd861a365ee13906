"""`cascade outcomes`: make the table that tuning and evaluation read."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.cli.rows import read_rows
from cascade.errors import RequestError

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph
    from cascade.lab.tables.collect import Labelled
    from cascade.models.base import Model
    from cascade.policy.table import Outcomes


def outcomes(
    out: Annotated[Path, typer.Option(help="Table to write; rows that it already has are kept and skipped.")],
    graph: Annotated[Path | None, typer.Argument(help="Graph file.", metavar="[GRAPH]")] = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled rows: .jsonl or .csv with text, label; - is stdin.")
    ] = None,
    from_traces: Annotated[bool, typer.Option("--from-traces", help="Use graded runs; ask nobody.")] = False,
    grades: Annotated[
        Path | None, typer.Option(help="For --from-traces: rows of run, correct; default: stored.")
    ] = None,
    graph_name: Annotated[
        str | None, typer.Option(help="For --from-traces: only runs of this graph, NAME or NAME@DIGEST.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Rows in flight at once.")] = 8,
    trace_db: TraceDb = None,
) -> None:
    """Ask every model of GRAPH about labelled rows, or take graded runs, and write an outcome table."""
    if from_traces:
        if graph is not None or data is not None:
            raise RequestError("--from-traces asks nobody; leave out GRAPH and --data")
        _from_traces(grades, graph_name, out, trace_db)
    elif graph is None or data is None or grades is not None or graph_name is not None:
        raise RequestError("give GRAPH and --data FILE; or --from-traces, with --grades or --graph-name")
    else:
        _from_graph(graph, data, out, concurrency)


def _from_traces(grades: Path | None, graph_name: str | None, out: Path, trace_db: str | None) -> None:
    from itertools import groupby

    from cascade.lab.tables.graded import graded_row, read_grades, stored_grades
    from cascade.lab.tables.outcomes import from_rows, write_outcomes
    from cascade.trace import TraceStore

    if grades is not None and graph_name is not None:
        raise RequestError("--grades names the runs; leave out --graph-name")
    with TraceStore(trace_url(trace_db), create=False) as store:
        read = read_grades(grades) if grades is not None else stored_grades(store, graph_name)
        by_run = groupby(sorted(read, key=lambda grade: grade.run), lambda grade: grade.run)
        rows = [graded_row(store.get(run), list(own)) for run, own in by_run]
    write_outcomes(rows, out)
    _summary(from_rows(rows), out)


def _from_graph(path: Path, data: str, out: Path, concurrency: int) -> None:
    from cascade.config.load import load_graph
    from cascade.lab.tables.collect import Labelled
    from cascade.lab.tables.outcomes import read_outcomes

    if out.suffix != ".jsonl":
        raise RequestError(f"{out}: rows are appended one by one; give a .jsonl file for --out")
    rows = [Labelled(row.id, row.text, row.label or "") for row in read_rows(data)]
    bare = next((row.id for row in rows if not row.label.strip()), None)
    if bare is not None:
        raise RequestError(f"{data}: row {bare!r} has no 'label'; every row needs the right answer")
    loaded = load_graph(path, tuned=False)
    kept = _kept(out)
    done = _check_kept(kept, rows, out)
    asyncio.run(_ask(loaded, [row for row in rows if row.id not in done], kept, out, concurrency))
    _summary(read_outcomes(out), out)


def _kept(out: Path) -> Outcomes | None:
    """Return the rows of an earlier, perhaps interrupted run; None if there are none."""
    from cascade.lab.tables.outcomes import parse_outcomes

    try:
        data = out.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestError(f"{out}: {error.strerror}; give a writable file for --out") from None
    whole = data[: data.rfind(b"\n") + 1]
    kept = parse_outcomes(out, whole) if whole.strip() else None
    if len(whole) < len(data):  # the last row was being written when the run was cut off
        with out.open("r+b") as file:
            file.truncate(len(whole))
    return kept


def _check_kept(kept: Outcomes | None, rows: list[Labelled], out: Path) -> set[str]:
    """Return the ids that need not be asked; refuse a table of other rows."""
    if kept is None:
        return set()
    wanted = {row.id: row for row in rows}
    labels = kept.fields.get("label", [""] * len(kept))
    for name, prompt, label in zip(kept.ids, kept.prompts, labels, strict=True):
        row = wanted.get(name)
        if row is None or (prompt, label) != (row.text, row.label):
            what = "is not in the data" if row is None else "has another text or label in the data"
            raise RequestError(f"{out}: kept row {name!r} {what}; give another file for --out, or remove it")
    return set(kept.ids)


async def _ask(
    loaded: LoadedGraph, rows: list[Labelled], kept: Outcomes | None, out: Path, concurrency: int
) -> None:
    from cascade.lab.tables.collect import answering, collect, how_asked
    from cascade.run import Cascade, build_models

    graph = loaded.graph
    models = build_models(loaded, lambda inner: Cascade(inner, None), answering(graph))
    try:
        usable = _usable(models)
        _note_gaps(kept, list(usable), out)
        with _open(out) as sink, _progress() as bar:
            already = len(kept) if kept else 0
            shown = bar.add_task(graph.name, total=already + len(rows), completed=already)

            def keep(row: dict[str, Any]) -> None:
                _append(sink, row)
                bar.advance(shown)

            await collect(how_asked(graph, usable, loaded.calibrations), rows, keep, concurrency)
    finally:
        await asyncio.gather(*(model.aclose() for model in models.values()))


def _usable(models: dict[str, Model]) -> dict[str, Model]:
    reasons = {name: model.unavailable() for name, model in models.items()}
    for name, reason in reasons.items():
        if reason is not None:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    usable = {name: model for name, model in models.items() if reasons[name] is None}
    if not usable:
        raise RequestError("no model of the graph can be asked now, so there is nothing to collect")
    return usable


def _note_gaps(kept: Outcomes | None, names: list[str], out: Path) -> None:
    import numpy as np

    for name in names if kept else []:
        columns = kept.models.get(name) if kept else None
        lacking = len(kept or ()) if columns is None else int(np.isnan(columns.cost_usd).sum())
        if lacking:
            print(
                f"note: {lacking} kept rows lack {name}; remove them from {out} to ask again", file=sys.stderr
            )


def _open(out: Path) -> TextIO:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return out.open("a", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{out}: {error.strerror}; give a writable file for --out") from None


def _append(sink: TextIO, row: dict[str, Any]) -> None:
    """Write one row so that it survives whatever comes next."""
    from cascade.lab.tables.formats import json_line

    try:
        sink.write(json_line(row))
        sink.flush()
        os.fsync(sink.fileno())
    except OSError as error:
        raise RequestError(f"{sink.name}: {error.strerror}; the rows before are kept") from error


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _summary(table: Outcomes, out: Path) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"{len(table)} rows")
    for name in ("model", "rows", "right", "mean $", "failed"):
        shown.add_column(name, justify="left" if name == "model" else "right")
    for name, model in table.models.items():
        graded = ~np.isnan(model.quality)
        failed = int((~graded & ~np.isnan(model.cost_usd)).sum())
        right = f"{model.quality[graded].mean():.1%}" if graded.any() else "—"
        cost = f"{model.cost_usd[~np.isnan(model.cost_usd)].mean():.3g}"
        shown.add_row(name, str(int(graded.sum())), right, cost, str(failed))
    console = Console()
    console.print(shown)
    console.print(f"written  {out}", highlight=False, markup=False, soft_wrap=True)
