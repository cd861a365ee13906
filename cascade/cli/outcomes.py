"""`cascade outcomes`: make the table that tuning and evaluation read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import TraceDb, progress_bar
from cascade.cli.rows import LabelColumn, TextColumn
from cascade.errors import RequestError

if TYPE_CHECKING:
    from cascade.policy.table import Outcomes


def outcomes(
    out: Annotated[Path, typer.Option(help="Table to write; rows that it already has are kept and skipped.")],
    graph: Annotated[Path | None, typer.Argument(help="Graph file.", metavar="[GRAPH]")] = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled rows: .jsonl, .csv, … with text, label; - is stdin.")
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    from_traces: Annotated[
        bool, typer.Option("--from-traces", help="Use graded runs; ask no model.")
    ] = False,
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
    from cascade import lab

    if from_traces:
        if graph is not None or data is not None:
            raise RequestError("--from-traces asks no model; leave out GRAPH and --data")
        table = lab.outcomes_from_traces(out, grades=grades, graph=graph_name, trace_db=trace_db)
    elif graph is None or data is None or grades is not None or graph_name is not None:
        raise RequestError("give GRAPH and --data FILE; or --from-traces, with --grades or --graph-name")
    else:
        with progress_bar(graph.stem) as on_progress:
            table = lab.collect_outcomes(
                graph, data, out, text=text_column, label=label_column,
                concurrency=concurrency, on_progress=on_progress,
                on_note=lambda note: print(note, file=sys.stderr),
            )  # fmt: skip
    _print(table, out)


def _print(table: Outcomes, out: Path) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from cascade.lab.evaluation.remarks import table_remarks

    summary = Table(title=f"{len(table)} rows")
    for name in ("model", "rows", "right", "mean $", "failed"):
        summary.add_column(name, justify="left" if name == "model" else "right")
    for name, model in table.models.items():
        graded = ~np.isnan(model.quality)
        asked = ~np.isnan(model.cost_usd)
        right = f"{model.quality[graded].mean():.1%}" if graded.any() else "—"
        failed = int((~graded & asked).sum())
        summary.add_row(
            name, str(int(graded.sum())), right, f"{model.cost_usd[asked].mean():.3g}", str(failed)
        )
    console = Console()
    console.print(summary)
    for remark in table_remarks(table.models, table.fields.get("label", ())):
        print(f"warning: {remark}", file=sys.stderr)
    console.print(f"written  {out}", highlight=False, markup=False, soft_wrap=True)
