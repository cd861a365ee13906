"""`cascade grade`: say whether the answer of a stored run was right."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cascade.cli.options import TraceDb, trace_url


def grade(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `last`.", metavar="RUN")],
    verdict: Annotated[Literal["right", "wrong"], typer.Argument(help="What the answer was.")],
    by: Annotated[str | None, typer.Option(help="Who says so.")] = None,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
    trace_db: TraceDb = None,
) -> None:
    """Grade the answer of RUN, or, if it gave none, its best draft. The newest grade counts."""
    from cascade.trace import TraceStore

    with TraceStore(trace_url(trace_db), create=False) as store:
        newest = store.runs(limit=1) if run == "last" else []
        given = store.grade(newest[0].run if newest else run, verdict == "right", by=by, note=note)
        before = len(store.grades(given.run)) - 1
    again = f" ({before} earlier grade{'' if before == 1 else 's'} kept)" if before else ""
    print(f"run {given.run} is graded {verdict}{again}")
