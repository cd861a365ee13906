"""`cascade calibrate`: fit a stage's map from score to P(correct) on labelled rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import progress_bar
from cascade.cli.rows import LabelColumn, TextColumn
from cascade.policy.calibrate import Method

if TYPE_CHECKING:
    from cascade.lab import CalibrationRun


def calibrate(
    graph: Annotated[Path, typer.Argument(help="Graph file.", metavar="GRAPH")],
    stage: Annotated[str, typer.Argument(help="Name of the stage to calibrate.", metavar="STAGE")],
    data: Annotated[str, typer.Option(help="Labelled rows: .jsonl, .csv, … with text, label; - is stdin.")],
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    model: Annotated[
        str | None, typer.Option(help="Ask this model in place of the stage's own, such as its canary.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: the stage's own 'calibration'.")
    ] = None,
    method: Annotated[Method, typer.Option(help="How to fit the map.")] = "isotonic",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the cross-fitting folds.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Rows in flight at once.")] = 8,
) -> None:
    """Ask STAGE of GRAPH about labelled rows that its model was not trained on, and fit its calibration."""
    from cascade import lab

    with progress_bar(stage) as on_progress:
        fitted = lab.calibrate(
            graph, stage, data, text=text_column, label=label_column, model=model, out=out, method=method,
            seed=seed, concurrency=concurrency, on_progress=on_progress,
            on_note=lambda note: print(note, file=sys.stderr),
        )  # fmt: skip
    _print(fitted)


def _print(fitted: CalibrationRun) -> None:
    """Print what the map is worth: the raw score read as a probability beside the held-out confidence."""
    from rich.console import Console
    from rich.table import Table

    from cascade.lab.evaluation.metrics import auroc, brier, ece

    calibration, graded = fitted.calibration, fitted.graded
    title = f"{calibration.by} {calibration.signal}, {calibration.method}, {calibration.rows} rows"
    table = Table(title=title)
    for name in ("", "raw score", "calibrated"):
        table.add_column(name, justify="left" if not name else "right")
    for name, metric, calibrated in [
        ("AUROC", auroc, calibration.auroc),
        ("calibration error", ece, calibration.ece),
        ("Brier score", brier, calibration.brier),
    ]:
        table.add_row(name, f"{metric(graded.scores, graded.correct):.4f}", f"{calibrated:.4f}")
    low, high = f"{fitted.change.low:+.4f}", f"{fitted.change.high:+.4f}"
    table.add_row("  its change (95 %)", "", f"{fitted.change.value:+.4f} ({low} to {high})")
    console = Console()
    console.print(table)
    console.print(f"accuracy    {calibration.accuracy:.4f}", highlight=False)
    console.print(f"confidence  {calibration.lowest:.4f} to {calibration.highest:.4f}", highlight=False)
    if graded.missing:
        console.print(f"no score    {len(graded.missing)} rows, the first: {graded.missing[0]}", markup=False)
    for remark in fitted.remarks:
        print(f"warning: {remark}", file=sys.stderr)
    console.print(f"written     {fitted.path}", highlight=False, markup=False, soft_wrap=True)
