"""`cascade replay`: what stored runs would have become under other thresholds, without calling a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.config.change import change_graph
from cascade.config.load import LoadedGraph, load_graph
from cascade.explain.formatting import parse_since
from cascade.policy.tuned import reads_texts
from cascade.records import Request, Result, Status

if TYPE_CHECKING:
    from cascade.lab.replays.compare import Change, Comparison
    from cascade.lab.replays.replay import Outcome, Price
    from cascade.trace import RunFilter

_SHOWN = 20  # changed runs that the table lists; --json lists all


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
    """Decide stored runs of GRAPH anew, by other thresholds, limits or a policy; no model is called."""
    loaded = load_graph(graph)
    changed = change_graph(loaded, set_ or [], policy)
    from cascade.lab.replays.compare import compare
    from cascade.lab.replays.replay import ReplaySettings
    from cascade.lab.replays.replay import replay as decide_anew
    from cascade.trace import RunFilter

    url = trace_url(trace_db)
    where = RunFilter(graph=graph_name or loaded.graph.name, status=status, since=parse_since(since))
    price = _prices(changed, url, where)
    seconds = loaded.graph.limits.seconds
    settings = ReplaySettings(changed.graph, seconds, changed.calibrations, price, changed.policy)
    left_out: Counter[str] = Counter()
    found = compare(_fitting(changed, url, where, left_out), lambda result: decide_anew(result, settings))
    if json_:
        about: dict[str, Any] = {"graph": f"{loaded.graph.name}@{loaded.digest}", "set": set_ or []}
        about |= {} if policy is None else {"policy": str(policy)}
        print(json.dumps(about | _as_json(found, left_out)))
    else:
        _print(found, left_out, place=f"{where.graph} in {url}")


def _prices(loaded: LoadedGraph, url: str, where: RunFilter) -> Price:
    """Return the worst case of a call; where only the hash of a text is kept, the dearest recorded call."""
    from cascade.explain.formatting import is_hash
    from cascade.models.base import Prompt, cost
    from cascade.run import Cascade, build_models
    from cascade.trace import max_call_costs

    models = build_models(loaded, lambda inner: Cascade(inner, None))
    dearest: dict[str, float] | None = None

    def price(name: str, request: Request) -> float | None:
        nonlocal dearest
        model = models[name]
        if not is_hash(request.text):
            return cost(model.price, *model.worst_case(Prompt.of(request)))
        if cost(model.price, 1, 1) == 0:
            return 0.0
        if dearest is None:
            dearest = max_call_costs(url, where)
        return dearest.get(name)

    return price


def _fitting(loaded: LoadedGraph, url: str, where: RunFilter, left_out: Counter[str]) -> Iterator[Result]:
    """Yield the runs that say something about this graph; count why the others do not."""
    from cascade.explain.formatting import is_hash
    from cascade.lab.replays.replay import incompatibility
    from cascade.trace import history

    reading = loaded.policy is not None and reads_texts(loaded.policy)
    for result in history(url, where):
        reason = incompatibility(result, loaded.graph)
        if reason is None and reading and is_hash(result.request.text):
            reason = "texts are not stored, and the policy reads them"
        if reason is None:
            yield result
        else:
            left_out[reason] += 1


def _as_json(found: Comparison, left_out: Counter[str]) -> dict[str, Any]:
    status = ("answered", "accepted", "best_effort", "abstained", "waiting")
    return {
        "runs": found.runs,
        "unknown": dict(found.unknown),
        "left_out": dict(left_out),
        "old": {
            **{name: found.old["status", name] for name in status},
            "tiers": {tier: found.old["tier", tier] for tier in found.tiers()},
            "cost_usd": found.old_cost,
        },
        "new": {
            **{name: [found.certain["status", name], found.possible["status", name]] for name in status},
            "tiers": {
                tier: [found.certain["tier", tier], found.possible["tier", tier]] for tier in found.tiers()
            },
            "cost_usd": [found.lowest, found.highest],
        },
        "changes": [
            {
                "run": change.run,
                "old": change.old._asdict() | {"cost_usd": change.old_cost},
                "new": [outcome._asdict() for outcome in change.new],
                "cost_usd": [change.lowest, change.highest],
                "unknown": change.unknown,
            }
            for change in found.changes
        ],
    }


def _print(found: Comparison, left_out: Counter[str], place: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for reason, count in left_out.most_common():
        console.print(f"left out: {count}: {reason}")
    if not found.runs:
        console.print(f"no run of {place} to replay")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (f"{found.runs} runs", "as recorded", "replayed"):
        table.add_column(name, justify="left" if name.endswith("runs") else "right")
    for row in _rows(found):
        table.add_row(*row)
    console.print(table)
    for stage, count in found.unknown.most_common():
        console.print(f"not known: {count} runs would have asked {stage}, which they never did")
    known = [change for change in found.changes if change.unknown is None]
    _list(console, "changed", known)
    _list(console, "may change", [change for change in found.changes if change.unknown is not None])
    if not found.changes:
        console.print("no run would have ended otherwise")


def _rows(found: Comparison) -> Iterator[tuple[str, str, str]]:
    from cascade.explain.formatting import format_usd

    def row(label: str, key: tuple[str, str]) -> tuple[str, str, str]:
        return label, str(found.old[key]), _range(str(found.certain[key]), str(found.possible[key]))

    yield row("answered", ("status", "answered"))
    for tier in found.tiers():
        yield row(f"  by {tier}", ("tier", tier))
    for name, label in (("best_effort", "  best effort"), ("abstained", "abstained"), ("waiting", "waiting")):
        if found.old["status", name] or found.possible["status", name] or name == "abstained":
            yield row(label, ("status", name))
    highest = "no bound" if found.highest is None else format_usd(found.highest)
    yield "cost", format_usd(found.old_cost), _range(format_usd(found.lowest), highest)
    yield "not known", "", str(found.unknown.total())


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _list(console: Any, title: str, changes: list[Change]) -> None:
    from cascade.explain.formatting import clean

    if changes:
        console.print(f"\n{title}: {len(changes)}")
    for change in changes[:_SHOWN]:
        new = " or ".join(map(_outcome, change.new))
        console.print(f"  {clean(change.run, 80)}  {_outcome(change.old)} → {new}")
    if len(changes) > _SHOWN:
        console.print(f"  … and {len(changes) - _SHOWN} more; --json lists all")


def _outcome(outcome: Outcome) -> str:
    tier = f"({outcome.tier})" if outcome.tier else None
    return " ".join(filter(None, (outcome.status.replace("_", " "), outcome.stage, tier)))
