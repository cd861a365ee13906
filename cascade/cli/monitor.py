"""`cascade monitor`: do live scores still look like those that each stage was calibrated on?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.config.load import LoadedGraph, load_graph
from cascade.errors import ConfigError, RequestError
from cascade.explain.formatting import parse_since
from cascade.files import replace_file
from cascade.lab.monitoring.collect import Watched, collect
from cascade.lab.monitoring.tightening import Audited, reset, tighten
from cascade.policy.tighten import Tightened

if TYPE_CHECKING:
    from cascade.lab.monitoring.drift import Drift, Reference

DRIFTED = 3  # exit status: 1 is an error, 2 a wrong option


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
        typer.Option(help="Write the scores of these runs to this file, to compare later ones with."),
    ] = None,
    delta: Annotated[
        float, typer.Option(min=1e-9, max=0.5, help="Chance of a false alarm, ever, for each stage.")
    ] = 0.01,
    forget: Annotated[
        bool, typer.Option("--reset", help="Go back to the graph's own thresholds, and compare nothing.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trace_db: TraceDb = None,
) -> None:
    """Compare the stored runs of GRAPH with each stage's calibration data; exit status 3 if one drifted."""
    loaded = load_graph(graph)
    if forget:
        known = reset(graph)
        typer.echo("the graph's own thresholds hold again" if known else "no threshold had been raised")
        return
    from cascade.lab.monitoring.drift import read_references
    from cascade.trace import RunFilter, history

    given = read_references(reference) if reference else None
    url = trace_url(trace_db)
    version = f"{loaded.graph.name}@{loaded.digest}"
    where = RunFilter(graph=version, since=parse_since(since))
    stages = collect(loaded, history(url, where), given=given, dated=since is None)
    reports = [_report(loaded, watched, given, delta) for watched in stages]
    raised = tighten(loaded, _drifted(stages, reports))
    for report in reports:
        report["tightened"] = raised.get(report["stage"])
    if write_reference:
        _write(write_reference, version, stages)
    if json_:
        print(json.dumps({"graph": version, "delta": delta, "stages": reports}))
    else:
        _print(reports, place=f"{version} in {url}", alarm=2 / delta)
    if any(report["verdict"] == "drifted" for report in reports):
        raise typer.Exit(DRIFTED)


def _drifted(stages: list[Watched], reports: list[dict[str, Any]]) -> dict[str, tuple[str, list[Audited]]]:
    """Return the stages that are to be tightened: the run of the alarm, and the audits since then."""
    found = {}
    for watched, report in zip(stages, reports, strict=True):
        alarm = report["first_alarm"]
        if alarm is not None and watched.stage.on_drift == "tighten":
            since = watched.runs[watched.runs.index(alarm) :]
            found[watched.stage.name] = (alarm, [each for each in watched.drawn if each.run in set(since)])
    return found


def _report(
    loaded: LoadedGraph, watched: Watched, given: Mapping[str, Reference] | None, delta: float
) -> dict[str, Any]:
    """Return what is printed of a stage."""
    from cascade.lab.monitoring.drift import drift

    name = watched.stage.name
    accept = watched.stage.accept if watched.at is None else watched.at
    calibration = loaded.calibrations.get(name) if watched.at is None else None
    reference, why = _reference(loaded, watched, given)
    found: Drift | None = None
    if reference is not None and accept is not None:
        confidence = calibration.apply if calibration else float
        found = drift(reference, watched.scores, accept=accept, confidence=confidence, delta=delta)
    report = {
        "stage": name,
        "runs": len(watched.scores),
        "since": watched.since,
        "unmeasured": watched.unmeasured,
        "reference": None,
        "live": None,
        "e_value": None,
        "verdict": "no reference",
        "why": why,
        "first_alarm": None,
        "audits": {"runs": watched.audits, "graded": watched.graded, "agreed": watched.agreed},
    }
    if found is None:
        return report
    alarm = None if found.since is None else watched.runs[found.since]
    kept = {key: value for key, value in asdict(found).items() if key not in ("runs", "since")}
    return report | kept | {"first_alarm": alarm}


def _reference(
    loaded: LoadedGraph, watched: Watched, given: Mapping[str, Reference] | None
) -> tuple[Reference | None, str | None]:
    """Return what the stage's live scores are compared with, or why there is nothing.

    A calibration saw every row. Live, only the first stage sees every request: a later one gets what the
    stages before it passed on, whose scores are lower even if nothing drifted.
    """
    from pydantic import ValidationError

    from cascade.lab.monitoring.drift import Reference

    name, (by, signal) = watched.stage.name, watched.signal
    if given is not None:
        found = given.get(name)
        if found is not None and (found.by, found.signal) == (by, signal):
            return found, None
        return None, f"the reference file has no scores by {by}, {signal}, of this stage"
    calibration = loaded.calibrations.get(name) if watched.at is None else None
    if calibration is None:
        what = "it has no calibration" if watched.at is None else "its policy decides"
        return None, f"{what}; give --reference"
    if watched.stage != loaded.graph.stages[0]:
        return None, "it sees only what earlier stages pass on, its calibration saw all; give --reference"
    if not calibration.scores:
        return None, "its calibration holds no scores; fit it anew with 'cascade calibrate'"
    try:
        return Reference(by=by, signal=signal, rows=calibration.rows, scores=calibration.scores), None
    except ValidationError as error:
        text = error.errors()[0]["msg"]
        raise ConfigError(
            f"{loaded.path}: calibration of stage {name!r}: scores: {text}; fit it anew"
        ) from None


def _write(path: Path, version: str, stages: list[Watched]) -> None:
    from cascade.lab.monitoring.drift import Reference, References
    from cascade.policy.calibrate import thin

    found = {}
    for watched in stages:
        by, signal = watched.signal
        if watched.scores:
            rows = len(watched.scores)
            found[watched.stage.name] = Reference(
                by=by, signal=signal, rows=rows, scores=thin(watched.scores)
            )
    if not found:
        raise RequestError(f"{path}: not written: no stored run of {version} has a score")
    written = datetime.now(UTC).isoformat(timespec="seconds")
    text = References(graph=version, written=written, stages=found).model_dump_json() + "\n"
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}; give a writable file for --write-reference") from None


def _print(reports: list[dict[str, Any]], place: str, alarm: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not reports:
        console.print("no stage of this graph checks confidence, so there is nothing to compare")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "runs", "accepted then", "accepted now", "e-value", "verdict"):
        table.add_column(name, justify="left" if name in ("stage", "verdict") else "right")
    for report in reports:
        shares = (_share(report["reference"]), _share(report["live"]))
        e_value = "—" if report["e_value"] is None else f"{report['e_value']:.3g}"
        table.add_row(report["stage"], str(report["runs"]), *shares, e_value, report["verdict"])
    console.print(table)
    console.print(f"alarm at an e-value of {alarm:g}; runs of {place}")
    for report in reports:
        for line in _remarks(report):
            console.print(f"{report['stage']}: {line}")


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _remarks(report: dict[str, Any]) -> Iterable[str]:
    if report["why"]:
        yield f"no reference: {report['why']}"
    if report["first_alarm"]:
        yield f"drifted: the alarm came with run {report['first_alarm']}"
    raised = report["tightened"]
    if raised:
        yield Tightened.model_validate(raised).why
    if report["unmeasured"]:
        yield f"{report['unmeasured']} answers had no score"
    audits = report["audits"]
    if audits["runs"]:
        yield (
            f"{audits['runs']} accepted answers audited; later stages answered {audits['graded']} of them, "
            f"{audits['agreed']} alike"
        )
