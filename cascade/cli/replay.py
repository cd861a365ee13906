"""`cascade replay`: what stored runs would have become under other thresholds, without calling a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.records import Status

if TYPE_CHECKING:
    from cascade.lab.replays.compare import Change, ReplayComparison
    from cascade.lab.replays.replay import ReplayOutcome

_MAX_LISTED = 20  # changed runs in the table; --json lists all


def replay(
    graph: Annotated[Path, typer.Argument(help="Graph file.", metavar="GRAPH")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a threshold or limit; may be repeated."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="Decide by this policy ('cascade tune'), not by the graph's thresholds."),
    ] = None,
    graph_name: Annotated[
        str | None, typer.Option(help="Runs of this graph: NAME or NAME@DIGEST; default: GRAPH's name.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only runs that started then or later: ISO 8601.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only runs with this status.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trace_db: TraceDb = None,
) -> None:
    """Decide stored runs of GRAPH again by other thresholds, limits or a policy. No model is called."""
    from cascade import lab

    url = trace_url(trace_db)
    report = lab.replay(
        graph, changes=set_ or [], policy=policy, graph_name=graph_name, since=since, status=status,
        trace_db=url,
    )  # fmt: skip
    if json_:
        about: dict[str, Any] = {"graph": report.graph, "set": set_ or []}
        about |= {} if policy is None else {"policy": str(policy)}
        print(json.dumps(about | report.as_json()))
    else:
        _print(report.comparison, report.left_out, source=f"{report.runs_of} in {url}")


def _print(comparison: ReplayComparison, left_out: Counter[str], source: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for reason, count in left_out.most_common():
        console.print(f"left out: {count}: {reason}")
    if not comparison.runs:
        console.print(f"no run of {source} to replay")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (f"{comparison.runs} runs", "as recorded", "replayed"):
        table.add_column(name, justify="left" if name.endswith("runs") else "right")
    for row in _rows(comparison):
        table.add_row(*row)
    console.print(table)
    for stage, count in comparison.unknown.most_common():
        console.print(f"not known: {count} runs would have asked {stage}, which they never did")
    certain = [change for change in comparison.changes if change.unknown is None]
    uncertain = [change for change in comparison.changes if change.unknown is not None]
    _print_changes(console, "changed", certain)
    _print_changes(console, "may change", uncertain)
    if not comparison.changes:
        console.print("no run would have ended otherwise")


def _rows(comparison: ReplayComparison) -> Iterator[tuple[str, str, str]]:
    from cascade.explain.formatting import format_usd

    def row(label: str, key: tuple[str, str]) -> tuple[str, str, str]:
        return (
            label,
            str(comparison.old[key]),
            _range(str(comparison.certain[key]), str(comparison.possible[key])),
        )

    yield row("answered", ("status", "answered"))
    for tier in comparison.tiers():
        yield row(f"  by {tier}", ("tier", tier))
    for name, label in (("best_effort", "  best effort"), ("abstained", "abstained"), ("waiting", "waiting")):
        if comparison.old["status", name] or comparison.possible["status", name] or name == "abstained":
            yield row(label, ("status", name))
    highest = "no bound" if comparison.highest is None else format_usd(comparison.highest)
    yield "cost", format_usd(comparison.old_cost), _range(format_usd(comparison.lowest), highest)
    yield "not known", "", str(comparison.unknown.total())


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _print_changes(console: Any, title: str, changes: list[Change]) -> None:
    from cascade.explain.formatting import clean

    if changes:
        console.print(f"\n{title}: {len(changes)}")
    for change in changes[:_MAX_LISTED]:
        new = " or ".join(map(_outcome, change.new))
        console.print(f"  {clean(change.run, 80)}  {_outcome(change.old)} → {new}")
    if len(changes) > _MAX_LISTED:
        console.print(f"  … and {len(changes) - _MAX_LISTED} more; --json lists all")


def _outcome(outcome: ReplayOutcome) -> str:
    tier = f"({outcome.tier})" if outcome.tier else None
    return " ".join(filter(None, (outcome.status.replace("_", " "), outcome.stage, tier)))
