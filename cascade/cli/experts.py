"""`cascade experts`: which experts there are and what they earn, and whether another model beats one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import Json, TraceDb, print_json, trace_url

if TYPE_CHECKING:
    from cascade.lab import ChallengeReport, ExpertReport, Inventory

app = typer.Typer(help="Experts: the small local models of this place.")


@app.callback(invoke_without_command=True)
def experts(
    context: typer.Context,
    graphs: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of graphs, or a graph file; may be given again; default: . and ./graphs."),
    ] = None,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """List every expert in reach: who uses it, its evaluation, drift, what it answers and what it saves."""
    if context.invoked_subcommand is not None:
        return
    from cascade import lab

    found = lab.experts(graphs, trace_db=trace_url(trace_db))
    if json_:
        values = found.model_dump(mode="json")
        for shown, report in zip(values["experts"], found.experts, strict=True):
            shown["share_answered"] = report.share
        print_json(values)
        return
    _print(found)


def _print(found: Inventory) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("expert", "task", "size", "age", "graphs", "right (its card)", "drift", "answered", "saved")
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number in (2, 3, 7) else "left", overflow="fold")
    for report in found.experts:
        table.add_row(*_row(report))
    console.print(table)
    unused = [f"{each.name} {each.task or ''}".strip() for each in found.experts if not each.uses]
    if unused:
        console.print(f"used by no graph in reach: {', '.join(unused)}", soft_wrap=True)
    for remark in found.remarks:
        console.print(remark, soft_wrap=True)


def _row(report: ExpertReport) -> list[str]:
    from cascade.explain.formatting import format_between, format_percent, format_saving

    graphs = ", ".join(dict.fromkeys(f"{use.graph} ({use.model})" for use in report.uses)) or "—"
    card, savings = report.evaluation, report.savings
    right = "—"
    if card is not None:
        ends = "" if card.low is None or card.high is None else f" ({card.low:.1%} to {card.high:.1%})"
        split = "" if not card.split else " " + card.split.replace("_", "-")
        right = f"{card.accuracy:.1%}{ends} of {card.rows:,}{split} rows"
    answered = "—" if report.share is None else f"{format_percent(report.share)} of {report.runs:,}"
    saved = "—"
    if savings is not None:
        kept = savings.cost_usd - savings.spent_usd
        low, high = (end - savings.spent_usd for end in (savings.low_usd, savings.high_usd))
        saved = format_between(kept, low, high)
        share = format_saving(savings.share, savings.share, savings.share)
        saved += f", {share}" if share else ""
    return [
        report.name, report.task or "—", f"{report.bytes / 2**20:.1f} MiB", f"{report.age_days:.0f} d",
        graphs, right, report.drift or "—", answered, saved,
    ]  # fmt: skip


@app.command()
def challenge(
    target: Annotated[
        str,
        typer.Argument(
            help="Graph file, or an expert: FILE.gguf#TASK, bundled:NAME#TASK.", metavar="GRAPH_OR_EXPERT"
        ),
    ],
    with_: Annotated[
        str, typer.Option("--with", help="The challenger: a model of the graph, or of an endpoint.")
    ],
    kind: Annotated[str, typer.Option(help="Its kind, if the graph has no such model.")] = "openai",
    url: Annotated[str | None, typer.Option(help="Its endpoint, likewise; default: the kind's.")] = None,
    keyless: Annotated[bool, typer.Option("--keyless", help="The endpoint at --url needs no key.")] = False,
    price: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Its price, if no list knows it: USD per million prompt and generated tokens."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled rows; default: stored runs that a person graded or answered.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Ask at most so many rows, drawn at random.")] = 200,
    budget: Annotated[float, typer.Option(min=0.0, help="The most that it may cost, in USD.")] = 1.0,
    margin: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="The difference in accuracy that matters.")
    ] = 0.02,
    since: Annotated[
        str | None, typer.Option(help="Only runs that started then or later: ISO 8601 or an age (30d).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of rows.")] = 0,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """Ask a general model the rows of experts, and say which it beats, on quality and on cost."""
    from cascade import lab
    from cascade.cli.options import progress_bar
    from cascade.lab.inventory.words import conclusions

    challenger = lab.Challenger(name=with_, kind=kind, url=url, price=price, keyed=not keyless)
    with progress_bar("answers") as on_progress:
        report = lab.challenge(
            target, challenger, data=data, rows=rows, budget=budget, margin=margin, since=since, seed=seed,
            trace_db=trace_url(trace_db), on_progress=on_progress,
        )  # fmt: skip
    if json_:
        print_json(_as_json(report))
        return
    for sentence in conclusions(report):
        print(sentence)


def _as_json(report: ChallengeReport) -> dict[str, object]:
    from cascade.lab.inventory.words import conclusions

    values = report.model_dump(mode="json")
    for shown, duel in zip(values["duels"], report.duels, strict=True):
        shown |= {"finding": duel.judged.finding, "rows_needed": duel.judged.rows_needed}
    return {**values, "conclusions": conclusions(report)}
