"""`cascade grade`: record whether the answer of a stored run was right."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cascade.cli.options import TraceDb, trace_url


def grade(
    run: Annotated[str, typer.Argument(help="A run's id, its first characters, or `last`.", metavar="RUN")],
    verdict: Annotated[Literal["right", "wrong"], typer.Argument(help="Whether the answer was right.")],
    by: Annotated[str | None, typer.Option(help="Who grades.")] = None,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
    trace_db: TraceDb = None,
) -> None:
    """Grade the answer of RUN, or its best draft if it gave no answer. The newest grade counts."""
    from cascade.trace import TraceStore

    with TraceStore(trace_url(trace_db), create=False) as store:
        newest = store.runs(limit=1) if run == "last" else []
        graded = store.grade(newest[0].run if newest else run, verdict == "right", by=by, note=note)
        earlier = len(store.grades(graded.run)) - 1
    kept = f" ({earlier} earlier grade{'' if earlier == 1 else 's'} kept)" if earlier else ""
    print(f"run {graded.run} is graded {verdict}{kept}")
