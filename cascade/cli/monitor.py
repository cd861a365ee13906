"""`cascade monitor`: do live scores still look like those that each stage was calibrated on?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.explain import describe_fact

if TYPE_CHECKING:
    from cascade.lab import MonitorReport, StageReport
    from cascade.lab.monitoring.alarms import PromotionWatch

DRIFTED = 3  # exit status; 1 is an error, 2 a wrong option


def monitor(
    graph: Annotated[Path, typer.Argument(help="Graph file.", metavar="GRAPH")],
    since: Annotated[
        str | None,
        typer.Option(help="Runs that started then or later: ISO 8601; default: when calibrated, else all."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Compare with this file of --write-reference.")
    ] = None,
    write_reference: Annotated[
        Path | None,
        typer.Option(help="Write the scores of these runs to this file, for later comparisons."),
    ] = None,
    delta: Annotated[
        float, typer.Option(min=1e-9, max=0.5, help="Probability of a false alarm, ever, per stage.")
    ] = 0.01,
    forget: Annotated[
        bool, typer.Option("--reset", help="Go back to the graph's own thresholds, and compare nothing.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trace_db: TraceDb = None,
) -> None:
    """Compare the stored runs of GRAPH with each stage's calibration data, and watch a promoted model.

    Exit status 3 if a stage drifted, or an alarm was raised against a promoted model.
    """
    from cascade import lab

    if forget:
        from cascade.config.load import load_graph

        load_graph(graph, tightened=False)
        raised = lab.reset_thresholds(graph)
        typer.echo("the graph's own thresholds hold again" if raised else "no threshold had been raised")
        return
    url = trace_url(trace_db)
    report = lab.monitor(
        graph, since=since, reference=reference, write_reference=write_reference, delta=delta, trace_db=url
    )
    if json_:
        print(json.dumps(report.model_dump(mode="json")))
    else:
        _print(report, url)
    if report.alarmed:
        raise typer.Exit(DRIFTED)


def _print(report: MonitorReport, url: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for remark in _of_promotion(report.promotion):
        console.print(remark)
    if not report.stages:
        console.print("no stage of this graph checks confidence, so there is nothing to compare")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "runs", "accepted then", "accepted now", "e-value", "verdict"):
        table.add_column(name, justify="left" if name in ("stage", "verdict") else "right")
    for stage in report.stages:
        shares = (_share(stage.reference), _share(stage.live))
        e_value = "—" if stage.e_value is None else f"{stage.e_value:.3g}"
        table.add_row(stage.stage, str(stage.runs), *shares, e_value, stage.verdict)
    console.print(table)
    console.print(f"alarm at an e-value of {2 / report.delta:g}; runs of {report.graph} in {url}")
    for stage in report.stages:
        for remark in _remarks(stage):
            console.print(f"{stage.stage}: {remark}")


def _of_promotion(watch: PromotionWatch | None) -> Iterable[str]:
    if watch is None:
        return
    yield f"{watch.stage}: {watch.new} was promoted in place of {watch.old} at {watch.at}"
    for alarm in watch.alarms:
        yield f"{watch.stage}: alarm ({alarm.kind}, e-value {alarm.e_value:.3g}): {alarm.said}"
    if watch.undone:
        yield f"{watch.stage}: rolled back: the file asks {watch.old} again; restart what serves it"
    if watch.refused is not None:
        yield f"{watch.stage}: not rolled back: {watch.refused}"


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _remarks(stage: StageReport) -> Iterable[str]:
    if stage.why:
        yield f"no reference: {stage.why}"
    if stage.first_alarm:
        yield f"drifted: the alarm came with run {stage.first_alarm}"
    if stage.tightened is not None:
        yield describe_fact(stage.tightened.fact)
    if stage.unmeasured:
        yield f"{stage.unmeasured} answers had no score"
    audits = stage.audits
    if audits.runs:
        yield (
            f"{audits.runs} accepted answers audited; later stages answered {audits.graded} of them, "
            f"{audits.agreed} alike"
        )
