"""`cascade budget`: show and reset what was spent on a day."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

import typer

from cascade.cli.options import Json, TraceDb, trace_url
from cascade.errors import RequestError
from cascade.explain.formatting import json_text, printable

app = typer.Typer(no_args_is_help=True, help="What graphs and accounts have spent on a day (UTC).")
_SCOPE = re.compile(r"(graph|account):.+")
_DAY = typer.Option(help="UTC day such as 2026-11-21; default: today.")


@app.command()
def show(
    day: Annotated[str | None, _DAY] = None,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """Show what every scope has spent and reserved. Dead processes left the abandoned amounts."""
    from cascade.trace import BudgetBook

    book = BudgetBook(trace_url(trace_db))
    try:
        balances = book.balances(_checked_day(day))
    finally:
        book.close()
    if json_:
        print(json_text([balance._asdict() for balance in balances]))
        return
    width = max([len(balance.scope) for balance in balances], default=5)
    print(f"{'scope':<{width}}  {'spent $':>12}  {'reserved $':>12}  {'abandoned $':>12}")
    for balance in balances:
        figures = "  ".join(f"{usd:>12.6f}" for usd in (balance.spent, balance.held, balance.abandoned))
        print(printable(f"{balance.scope:<{width}}  {figures}"))


@app.command()
def reset(
    scope: Annotated[str, typer.Argument(help="graph:NAME or account:NAME.", metavar="SCOPE")],
    day: Annotated[str | None, _DAY] = None,
    trace_db: TraceDb = None,
) -> None:
    """Forget what SCOPE has spent on a day, and what was reserved by processes that died."""
    from cascade.trace import BudgetBook

    if not _SCOPE.fullmatch(scope):
        raise RequestError(f"scope {scope!r} is unknown; expected graph:NAME or account:NAME")
    book = BudgetBook(trace_url(trace_db))
    try:
        book.reset(scope, _checked_day(day)).result()
    finally:
        book.close()


def _checked_day(day: str | None) -> str | None:
    try:
        return None if day is None else date.fromisoformat(day).isoformat()
    except ValueError:
        raise RequestError(f"day {day!r} is not a date; expected one like 2026-11-21") from None
