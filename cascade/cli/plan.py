"""`cascade plan`: build or buy, in money, time and privacy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import Json, TraceDb, print_json
from cascade.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from cascade.lab import Plan


def plan(
    graph: Annotated[
        Path | None, typer.Argument(help="Graph file; without it, all is assumed.", metavar="[GRAPH]")
    ] = None,
    assumptions: Annotated[
        Path | None, typer.Option(help="YAML file with what you know better than the defaults.")
    ] = None,
    write_assumptions: Annotated[
        Path | None, typer.Option(help="Write a commented file of all assumptions, and do nothing else.")
    ] = None,
    traces: Annotated[
        bool | None,
        typer.Option("--traces/--no-traces", help="Measure in stored runs; default: if there are any."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only runs that started then or later: ISO 8601 or an age (30d).")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """What a year costs with one strong model, with the cascade, and with an expert to be trained."""
    from cascade import lab

    if write_assumptions is not None:
        lab.write_assumptions(write_assumptions)
        print(f"written: {write_assumptions}; edit it, then: cascade plan --assumptions {write_assumptions}")
        return
    found = lab.plan(graph, assumptions=assumptions, traces=traces, since=since, trace_db=trace_db, seed=seed)
    if report is not None:
        _write(found, report)
    if json_:
        print_json(found.as_json())
        return
    _print(found)
    if report is not None:
        print(f"report  {report}")


def _write(found: Plan, target: Path) -> None:
    from cascade.files import replace_file
    from cascade.lab import plan_page

    try:
        replace_file(target, plan_page(found).encode(errors="backslashreplace"))
    except OSError as error:
        raise RequestError(f"{target}: {error.strerror}; give a writable file for --report") from None


def _print(found: Plan) -> None:
    from rich.console import Console

    from cascade.lab.planning.verdict import verdict

    console = Console(highlight=False, markup=False, emoji=False)
    for sentence in verdict(found):
        console.print(sentence)
    console.print()
    _print_options(console, found)
    _print_inputs(console, found)


def _print_options(console: Console, found: Plan) -> None:
    from cascade.lab.evaluation.formatting import duration, percent
    from cascade.lab.planning.verdict import amount, between, day_text, number

    rows = []
    for choice in found.choices:
        once, latency = float(choice.option.once_usd), choice.latency
        rows.append(
            [
                choice.option.name, between(choice.year_usd), amount(once), between(choice.first_year_usd),
                duration(latency.median), duration(latency.p95), percent(choice.leaves),
            ]
        )  # fmt: skip
    head = ["", "a year", "once", "first year", "median", "95%", "leaves the machine"]
    _table(console, head, rows, left=(0,))
    ends = f" ({day_text(found.break_even_low)} to {day_text(found.break_even_high)})" if found.drawn else ""
    console.print(
        f"break-even of the expert against {found.buy.option.name}: {day_text(found.break_even)}{ends}\n",
        soft_wrap=True,
    )
    rows = []
    for swing in found.swings:
        moved = [number(end) + ("" if swing.known else "*") for end in (swing.low, swing.high)]
        rows.append([swing.name, *moved, amount(swing.low_usd), amount(swing.high_usd)])
    head = ["it hinges most on", "low", "high", "saved then", "and then"]
    _table(console, head, rows, left=(0,))
    console.print("saved: by an expert in its first year; * no range is known, so moved by a quarter\n")


def _print_inputs(console: Console, found: Plan) -> None:
    from cascade.lab.planning.verdict import number

    rows = []
    for each in found.inputs.by_name.values():
        ends = "" if each.low is None or each.high is None else f"{number(each.low)} to {number(each.high)}"
        rows.append([each.name, number(each.value), ends, each.source, each.meaning])
    _table(console, ["number", "value", "range", "from", "meaning"], rows, left=(0, 3, 4))
    for line in found.remarks:
        console.print(line, soft_wrap=True)


def _table(console: Console, head: list[str], rows: list[list[str]], left: tuple[int, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
