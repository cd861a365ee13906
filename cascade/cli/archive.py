"""`cascade trace prune`, `vacuum`, `export` and `import`: remove old runs, and move runs between stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cascade.cli.options import TraceDb, trace_url
from cascade.errors import TraceError
from cascade.records import Rule, Status

if TYPE_CHECKING:
    from cascade.trace import RunFilter

_Graph = Annotated[str | None, typer.Option(help="Only this graph: NAME or NAME@DIGEST.")]
_File = Annotated[Path, typer.Argument(help="Ends in .jsonl or .parquet.", metavar="FILE")]


def prune(
    older_than: Annotated[str, typer.Option(help="Minimum age: 30d, 12h or 4w.", metavar="AGE")],
    graph: _Graph = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the runs.")] = False,
    trace_db: TraceDb = None,
) -> None:
    """Remove old runs and their grades for good. The ledger keeps their hashes and records the removal."""
    from cascade.trace import RunFilter
    from cascade.trace import prune as remove

    where = RunFilter(graph=graph, until=_before(older_than))
    note = f"older than {older_than}" + (f", graph {graph}" if graph else "")
    url = trace_url(trace_db)
    pruned = remove(url, where, note=note, dry_run=dry_run)
    outcome = "would be removed" if dry_run else "removed"
    print(f"{pruned.runs} runs and {pruned.grades} grades {outcome} ({note})")
    if pruned.runs and not dry_run:
        print("`cascade trace vacuum` gives their space back to the disk")


def _before(age: str) -> str:
    """Return the time that was `age` ago, in the store's format."""
    from cascade.explain.formatting import parse_age

    try:
        time = parse_age(age)
    except OverflowError:
        raise TraceError(f"--older-than {age!r} reaches back before the year 1; give less") from None
    if time is None:
        raise TraceError(
            f"--older-than {age!r} is not an age; give hours, days or weeks, such as 12h, 30d or 4w"
        )
    return time.isoformat(timespec="milliseconds")


def vacuum(trace_db: TraceDb = None) -> None:
    """Give the space of removed runs back to the disk. No other process may write meanwhile."""
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
    since: Annotated[
        str | None, typer.Option(help="Started then or later: 2026-11-21T04:00 (UTC), or 2h, 3d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Started before that.")] = None,
    trace_db: TraceDb = None,
) -> None:
    """Write runs with their grades to a new file, in the order in which they were stored."""
    from cascade.trace import export_runs

    filters = {"graph": graph, "status": status, "tier": tier, "rule": rule, "grade": grade}
    where = run_filter(filters | {"since": since, "until": until})
    count = export_runs(trace_url(trace_db), file, where)
    print(f"{count} runs written to {file}")


def run_filter(filters: dict[str, str | None]) -> RunFilter:
    """Return the filter that options describe; those that are None do not filter.

    Raises:
        TraceError: one cannot be read.
    """
    from cascade.serve.filters import read_query

    query = read_query({name: text for name, text in filters.items() if text is not None})
    if query.problems:
        raise TraceError("; ".join(f"--{problem}" for problem in query.problems))
    return query.where


def import_(file: _File, trace_db: TraceDb = None) -> None:
    """Store the runs of an exported file. Runs that are already stored stay as they are."""
    from cascade.trace import import_runs

    imported = import_runs(trace_url(trace_db), file)
    already = f"; {imported.present} runs were stored already" if imported.present else ""
    print(f"{imported.runs} runs and {imported.grades} grades imported{already}")
