"""`cascade check`: report every problem of graph files, without calling or downloading anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cascade.errors import ConfigError
from cascade.explain.formatting import json_text, printable


def check(
    graphs: Annotated[list[Path], typer.Argument(help="Graph files.", metavar="GRAPH...")],
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")] = False,
    untrusted: Annotated[
        bool, typer.Option(help="List what the files would read, run and contact; open nothing else.")
    ] = False,
) -> None:
    """Check graph files: schema, names, flow, thresholds, files, prices, calibrations."""
    if untrusted:
        for path in graphs:
            _list_accesses(path, as_json=json_)
        return
    problems: list[str] = []
    for path in graphs:
        report = _report(path)
        problems += report["problems"]
        if json_:
            typer.echo(json_text(report))
        elif report["ok"]:
            stages, models = _count(report["stages"], "stage"), _count(report["models"], "model")
            typer.echo(f"ok: {report['name']}: {stages}, {models}, {_limits(report['limits'])}")
    if problems and json_:
        raise typer.Exit(1)
    if problems:
        raise ConfigError(*problems)


def _list_accesses(path: Path, *, as_json: bool) -> None:
    from cascade.config.accesses import list_accesses

    listed = list_accesses(path)
    if as_json:
        rows = [{"part": part, **access._asdict()} for part, access in listed]
        typer.echo(json_text({"file": str(path), "accesses": rows}))
        return
    typer.echo(
        f"{path}: " + ("would do this:" if listed else "reads, runs and contacts nothing beyond itself")
    )
    for part, access in listed:
        note = f" ({access.note})" if access.note else ""
        typer.echo(printable(f"  {part}: {access.action} {access.target}{note}"))


def _report(path: Path) -> dict[str, Any]:
    from cascade.config.load import load_graph

    try:
        graph = load_graph(path).graph
    except ConfigError as error:
        return {"file": str(path), "ok": False, "problems": list(error.problems)}
    return {
        "file": str(path),
        "ok": True,
        "problems": [],
        "name": graph.name,
        "stages": len(graph.stages),
        "models": len(graph.models),
        "limits": graph.limits.model_dump(exclude_none=True),
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _limits(limits: dict[str, float]) -> str:
    formats = {"cost_usd": "at most ${:g}", "seconds": "{:g} s", "calls": "{:g} calls"}
    return ", ".join(formats[key].format(value) for key, value in limits.items()) or "no limits"
