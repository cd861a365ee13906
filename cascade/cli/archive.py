"""`cascade trace prune`, `vacuum`, `export` and `import`: keeping no more than is wanted, and moving runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.errors import TraceError
from cascade.records import Rule, Status

if TYPE_CHECKING:
    from cascade.trace import RunFilter

_UNITS = {"h": 1 / 24, "d": 1.0, "w": 7.0}  # days
_Graph = Annotated[str | None, typer.Option(help="Only this graph: NAME or NAME@DIGEST.")]
_File = Annotated[Path, typer.Argument(help="Ends in .jsonl or .parquet.", metavar="FILE")]


def prune(
    older_than: Annotated[str, typer.Option(help="Least age: 30d, 12h or 4w.", metavar="AGE")],
    graph: _Graph = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    trace_db: TraceDb = None,
) -> None:
    """Remove old runs for good, with their grades. The ledger keeps their hashes and says that they went."""
    from cascade.trace import RunFilter
    from cascade.trace import prune as remove

    where = RunFilter(graph=graph, until=_before(older_than))
    note = f"older than {older_than}" + (f", graph {graph}" if graph else "")
    url = trace_url(trace_db)
    found = remove(url, where, note=note, dry_run=dry_run)
    would = "would be removed" if dry_run else "removed"
    print(f"{found.runs} runs and {found.grades} grades {would} ({note})")
    if found.runs and not dry_run:
        print("`cascade trace vacuum` gives their space back to the disk")


def _before(age: str) -> str:
    """Return the time so long ago, as the store writes times."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", age.strip())
    if match is None:
        raise TraceError(f"--older-than {age!r} is no age; give hours, days or weeks, such as 12h, 30d or 4w")
    try:
        then = datetime.now(UTC) - timedelta(days=float(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise TraceError(f"--older-than {age!r} is before there were years; give less") from None
    return then.isoformat(timespec="milliseconds")


def vacuum(trace_db: TraceDb = None) -> None:
    """Give the space of removed runs back to the disk; nobody else may be writing."""
    from cascade.trace import vacuum as pack

    size = pack(trace_url(trace_db))
    if size.before is None or size.after is None:
        print("done")
    else:
        print(f"{size.before / 1e6:.1f} MB before, {size.after / 1e6:.1f} MB now")


def export(
    file: _File,
    graph: _Graph = None,
    status: Annotated[Status | None, typer.Option(help="Only this status.")] = None,
    tier: Annotated[str | None, typer.Option(help="Only answers of this tier.")] = None,
    rule: Annotated[Rule | None, typer.Option(help="Only runs that ended by this rule.")] = None,
    grade: Annotated[Literal["right", "wrong", "none"] | None, typer.Option(help="By newest grade.")] = None,
    since: Annotated[str | None, typer.Option(help="Begun then or later: 2026-11-21T04:00, UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Begun earlier than that.")] = None,
    trace_db: TraceDb = None,
) -> None:
    """Write runs with their grades to a new file, the first stored first."""
    from cascade.trace import export_runs

    given = {"graph": graph, "status": status, "tier": tier, "rule": rule, "grade": grade}
    where = _where(given | {"since": since, "until": until})
    count = export_runs(trace_url(trace_db), file, where)
    print(f"{count} runs written to {file}")


def _where(given: dict[str, str | None]) -> RunFilter:
    from cascade.serve.filters import read_query

    query = read_query({name: text for name, text in given.items() if text is not None})
    if query.problems:
        raise TraceError("; ".join(f"--{problem}" for problem in query.problems))
    return query.where


def import_(file: _File, trace_db: TraceDb = None) -> None:
    """Store the runs of an exported file; runs that are stored already stay as they are."""
    from cascade.trace import import_runs

    done = import_runs(trace_url(trace_db), file)
    already = f"; {done.present} runs were stored already" if done.present else ""
    print(f"{done.runs} runs and {done.grades} grades imported{already}")
