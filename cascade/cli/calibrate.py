"""`cascade calibrate`: fit a stage's map from score to P(correct) on labelled rows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.rows import read_rows
from cascade.config.load import LoadedGraph, load_graph
from cascade.errors import ConfigError, RequestError
from cascade.extras import require
from cascade.policy.calibrate import Calibration, Method, write_calibration
from cascade.spec.schema import ConfidenceConfig, HumanModel, Stage

if TYPE_CHECKING:
    from cascade.lab.evaluation.calibration import Graded


def calibrate(
    graph: Annotated[Path, typer.Argument(help="Graph file.", metavar="GRAPH")],
    stage: Annotated[str, typer.Argument(help="Name of the stage to calibrate.", metavar="STAGE")],
    data: Annotated[str, typer.Option(help="Labelled rows: .jsonl or .csv with text, label; - is stdin.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: the stage's own 'calibration'.")
    ] = None,
    method: Annotated[Method, typer.Option(help="How to fit the map.")] = "isotonic",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the cross-fitting folds.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Rows in flight at once.")] = 8,
) -> None:
    """Ask STAGE of GRAPH about labelled rows that its model was not trained on, and fit its calibration."""
    require("scipy", "cascade calibrate", "tune")  # now, and not after all rows were asked and paid for
    loaded = load_graph(graph, calibrated=False)
    chosen, check = _stage(loaded, stage)
    target = _target(loaded, check, out)
    rows = _labelled(data)
    from cascade.config.references import fingerprint
    from cascade.lab.evaluation.calibration import Source, fit_calibration, rows_sha256

    graded = asyncio.run(_grade(loaded, chosen, rows, concurrency))
    model = fingerprint(loaded.graph.models[chosen.ask[0]], loaded.base)
    fitted = fit_calibration(graded, Source(check, rows_sha256(rows), model), method=method, seed=seed)
    write_calibration(fitted, target)
    _report(fitted, graded, target)


def _stage(loaded: LoadedGraph, name: str) -> tuple[Stage, ConfidenceConfig]:
    """Return the stage called `name` and its confidence, if it can be calibrated."""
    names = [stage.name for stage in loaded.graph.stages]
    if name not in names:
        raise ConfigError(f"{loaded.path}: unknown stage {name!r}; known: {', '.join(names)}")
    stage = loaded.graph.stage(name)
    if stage.confidence is None:
        raise ConfigError(
            f"{loaded.path}: stage {name!r} has no 'confidence', so there is nothing to calibrate"
        )
    if len(stage.ask) != 1:
        asked = ", ".join(stage.ask) or "nobody"
        raise ConfigError(f"{loaded.path}: stage {name!r} asks {asked}; a calibration belongs to one model")
    if isinstance(loaded.graph.models[stage.ask[0]], HumanModel):
        raise ConfigError(f"{loaded.path}: stage {name!r} asks a person, whose answers have no score")
    return stage, stage.confidence


def _target(loaded: LoadedGraph, check: ConfidenceConfig, out: Path | None) -> Path:
    if out is not None:
        return out
    if check.calibration is None:
        raise RequestError("no file to write; give --out, or 'calibration' in the stage's confidence")
    return loaded.base / check.calibration


def _labelled(data: str) -> list[tuple[str, str]]:
    rows = read_rows(data)
    bare = next((row.id for row in rows if row.label is None), None)
    if bare is not None:
        raise RequestError(f"{data}: row {bare!r} has no 'label'; every row needs the right answer")
    return [(row.text, row.label) for row in rows if row.label is not None]


async def _grade(loaded: LoadedGraph, stage: Stage, rows: list[tuple[str, str]], concurrency: int) -> Graded:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cascade.graph.stage import Plan
    from cascade.lab.evaluation.calibration import grade
    from cascade.run import Cascade, build_models

    needed = [*stage.ask, *stage.gate_models]
    models = build_models(loaded, lambda inner: Cascade(inner, None), needed)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            shown = bar.add_task(f"{stage.name}: {stage.ask[0]}", total=len(rows))
            return await grade(
                Plan(loaded.graph, models, {}), stage, rows,
                concurrency=concurrency, on_row=lambda: bar.advance(shown),
            )  # fmt: skip
    finally:
        await asyncio.gather(*(model.aclose() for model in models.values()))


def _report(fitted: Calibration, graded: Graded, target: Path) -> None:
    """Print what the map is worth: the raw score read as a probability beside the held-out confidence."""
    from rich.console import Console
    from rich.table import Table

    from cascade.lab.evaluation.metrics import auroc, brier, ece

    table = Table(title=f"{fitted.by} {fitted.signal}, {fitted.method}, {fitted.rows} rows")
    for name in ("", "raw score", "calibrated"):
        table.add_column(name, justify="left" if not name else "right")
    for name, metric, after in [
        ("AUROC", auroc, fitted.auroc),
        ("calibration error", ece, fitted.ece),
        ("Brier score", brier, fitted.brier),
    ]:
        table.add_row(name, f"{metric(graded.scores, graded.correct):.4f}", f"{after:.4f}")
    console = Console()
    console.print(table)
    console.print(f"accuracy    {fitted.accuracy:.4f}", highlight=False)
    console.print(f"confidence  {fitted.lowest:.4f} to {fitted.highest:.4f}", highlight=False)
    if graded.missing:
        console.print(f"no score    {len(graded.missing)} rows, the first: {graded.missing[0]}", markup=False)
    console.print(f"written     {target}", highlight=False, markup=False, soft_wrap=True)
