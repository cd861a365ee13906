"""`cascade trace`: list stored runs, show one in full, or explain it in plain words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli import archive, ledger
from cascade.cli.options import Json, TraceDb, print_json, trace_url
from cascade.records import Call, Result, Rule, Status, Step

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

    from cascade.trace import RunSummary, TraceStore

app = typer.Typer(no_args_is_help=True, help="List, show, explain, check, move and remove stored runs.")
app.command()(ledger.verify)
app.command()(ledger.head)
app.command()(ledger.upgrade)
app.command()(archive.prune)
app.command()(archive.vacuum)
app.command()(archive.export)
app.command(name="import")(archive.import_)

RunName = Annotated[str, typer.Argument(help="A run's id, its first characters, or `last`.", metavar="RUN")]


@app.command(name="list")
def list_(
    graph: Annotated[str | None, typer.Option(help="Only this graph: NAME or NAME@DIGEST.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only this status.")] = None,
    tier: Annotated[str | None, typer.Option(help="Only answers of this tier.")] = None,
    rule: Annotated[Rule | None, typer.Option(help="Only runs that ended by this rule.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Only with this text in the request or answer, ignoring case.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Started then or later: 2026-11-21T04:00 (UTC), or 2h, 3d ago.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number, newest first.")] = 20,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """List stored runs, newest first."""
    filters = {"graph": graph, "status": status, "tier": tier, "rule": rule, "q": text, "since": since}
    where = archive.run_filter(filters)
    with _open(trace_db) as store:
        summaries = store.search(where, limit=limit)
        if json_:
            print_json([summary.model_dump(mode="json") for summary in summaries])
        elif summaries:
            _print_table(summaries)
        elif any(filters.values()) and store.runs(limit=1):
            print(f"no run in {store.location} matches; `cascade trace list` shows all")
        else:
            print(f"no runs yet in {store.location}; run `cascade run GRAPH TEXT`")


@app.command()
def show(run: RunName, json_: Json = False, trace_db: TraceDb = None) -> None:
    """Show everything that is stored about RUN."""
    result = _get(run, trace_db)
    if json_:
        print_json(result.model_dump(mode="json"))
    else:
        _console().print(_tree(result))


@app.command()
def explain(
    run: RunName,
    graph: Annotated[Path | None, typer.Option(help="The run's graph file: names the stages ahead.")] = None,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """Explain in plain words why each stage of RUN accepted or escalated."""
    from cascade import explain as explaining
    from cascade.config.load import load_graph

    config = load_graph(graph).graph if graph else None
    explanation = explaining.explain(_get(run, trace_db), config)
    if json_:
        print_json(explanation.model_dump(mode="json"))
    else:
        print(explaining.render_text(explanation))


def _get(run: str, trace_db: str | None) -> Result:
    with _open(trace_db) as store:
        newest = store.runs(limit=1) if run == "last" else []
        return store.get(newest[0].run if newest else run)


def _open(trace_db: str | None) -> TraceStore:
    from cascade.trace import TraceStore

    return TraceStore(trace_url(trace_db), create=False)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def _print_table(summaries: list[RunSummary]) -> None:
    from rich.table import Table

    console = _console()
    columns = _columns(summaries)
    table = Table(box=None, pad_edge=False, header_style="bold")
    room = console.width
    widths: dict[str, int] = {}
    for name in _PRIORITY:  # take the columns that fit
        width = _MIN_WIDTH.get(name) or max(map(len, (name, *columns[name])))
        if width > room:
            break
        widths[name] = width
        room -= width + 2
    for name in _MIN_WIDTH.keys() & widths.keys():  # texts are cut to their part of the rest of the line
        widths[name] += max(0, room) // len(_MIN_WIDTH)
    for name in (name for name in columns if name in widths):
        right = name in ("conf.", "cost", "time")
        table.add_column(name, justify="right" if right else "left", no_wrap=True, max_width=widths[name])
    for row in zip(*(cells for name, cells in columns.items() if name in widths), strict=True):
        table.add_row(*row)
    console.print(table)


_MIN_WIDTH = {"request": 16, "answer": 12}  # columns of text
_PRIORITY = (
    "run", "request", "status", "answer", "tier", "cost", "conf.", "rule", "graph", "started", "time",
)  # fmt: skip


def _columns(summaries: list[RunSummary]) -> dict[str, list[str]]:
    """Return the cells of each column, in the order of the table."""
    from cascade.explain.formatting import clean, format_duration, format_number, format_time, format_usd

    return {
        "run": [clean(row.run, 80) for row in summaries],
        "started": [clean(format_time(row.started).removesuffix(" UTC"), 40) for row in summaries],
        "graph": [clean(row.graph, 40) for row in summaries],
        "request": [clean(row.request, 200) for row in summaries],
        "status": [row.status for row in summaries],
        "tier": [clean(row.tier or "—", 20) for row in summaries],
        "rule": [row.rule or "—" for row in summaries],
        "conf.": ["—" if row.confidence is None else format_number(row.confidence) for row in summaries],
        "cost": [format_usd(row.cost_usd) for row in summaries],
        "time": [format_duration(row.seconds) for row in summaries],
        "answer": [clean(_answer(row), 120) for row in summaries],
    }


def _answer(row: RunSummary) -> str:
    """Return what a run answered, or what it waits for."""
    if row.status == "waiting":
        return "waits" if row.question is None else f"asks: {row.question}"
    return row.text or "—"


def _tree(result: Result) -> Tree:
    from rich.tree import Tree

    data = result.model_dump(mode="json", exclude={"trace", "request"}, exclude_none=True)
    tree = Tree(_line(data))
    tree.add(_line({"request": result.request.text, **result.request.model_dump(exclude={"text"})}))
    for step in result.trace:
        _add_step(tree, step)
    return tree


def _add_step(tree: Tree, step: Step) -> None:
    node = tree.add(_line({"stage": step.stage, "seconds": step.seconds}))
    if step.gate is not None:
        node.add(_line({"gate": step.gate}))
    for call in step.calls:
        _add_call(node, call)
    if step.estimate is not None:
        node.add(_line({"estimate": step.estimate.by, **step.estimate.model_dump(exclude={"by"})}))
    unset = {"action"} if step.decision.facts else {"action", "facts"}
    decision = step.decision.model_dump(exclude=unset, exclude_none=True)
    node.add(_line({"decision": step.decision.action, **decision}))


def _add_call(tree: Tree, call: Call) -> None:
    plain = call.model_dump(exclude={"model", "labels", "tokens", "meta"}, exclude_none=True)
    node = tree.add(_line({"call": call.model, **plain}))
    if call.labels:
        node.add(_line({"labels": call.labels}))
    if call.tokens:
        node.add(_line({"tokens": [(token.text, token.logprob) for token in call.tokens]}))
    if call.meta:
        node.add(_line({"meta": call.meta}))


def _line(data: dict[str, object]) -> str:
    """Return `name value · name value …`."""
    return "  ·  ".join(f"{name} {_value(value)}" for name, value in data.items())


def _value(value: object) -> str:
    from cascade.explain.formatting import clean

    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{clean(str(name), 80)} {_value(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):  # quoted if it is more than a word, cleaned of what can steer a terminal
        quoted = value if re.fullmatch(r"[\w@.:+/-]+", value) else json.dumps(value, ensure_ascii=False)
        return clean(quoted, 2 * len(value) + 2)
    return json.dumps(value)
