"""`cascade trace verify`, `head` and `upgrade`: check that stored runs are unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.options import Json, TraceDb, print_json, trace_url

KeyFile = Annotated[
    Path | None,
    typer.Option(help="File of the signing key; default: CASCADE_TRACE_KEY, else CASCADE_TRACE_KEY_FILE."),
]


def verify(
    anchor: Annotated[
        str | None, typer.Option(help="Earlier output of `cascade trace head`, which must still be there.")
    ] = None,
    key_file: KeyFile = None,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """Check that no stored run or grade was edited, removed or reordered. Exit status 1 if one was."""
    from cascade.trace import read_key
    from cascade.trace import verify as check

    key = read_key(key_file)
    checked = check(trace_url(trace_db), anchor=anchor, key=key)
    if json_:
        print_json(checked.model_dump(mode="json"))
    else:
        for problem in checked.problems:
            print(problem)
        if checked.count > len(checked.problems):
            print(f"… and {checked.count - len(checked.problems)} more problems")
        print(_summary(checked.model_dump(), signed=key is not None, anchored=anchor is not None))
    if checked.count:
        raise typer.Exit(1)


def _summary(checked: dict[str, int], *, signed: bool, anchored: bool) -> str:
    lines = [
        f"{checked['runs']} runs and {checked['grades']} grades checked against {checked['entries']} entries "
        f"of the ledger ({checked['pruned']} pruned, {checked['replaced']} replaced by their outcome): "
        + (f"{checked['count']} problems" if checked["count"] else "all as they were stored"),
        *([f"budgets checked against {checked['budgets']} entries of theirs"] if checked["budgets"] else []),
        f"head: {checked['head']} (entry {checked['last']})",
    ]
    if signed:
        lines.append(f"{checked['signed']} entries signed with this key")
    else:
        lines.append("signatures not checked (no key): a ledger rewritten as a whole would go unnoticed")
    if not anchored:
        lines.append("no anchor given: a ledger cut off at its end would go unnoticed")
    return "\n".join(lines)


def head(json_: Json = False, trace_db: TraceDb = None) -> None:
    """Print the last entry of the ledger. Kept elsewhere, it is an anchor for `verify`."""
    from cascade.trace import read_head

    last = read_head(trace_url(trace_db))
    if json_:
        print_json({"entry": last.seq, "head": str(last)})
    else:
        print(last)


def upgrade(trace_db: TraceDb = None) -> None:
    """Bring a trace database of an older cascade up to date; writing to it does the same."""
    from cascade.trace import SCHEMA_VERSION, TraceStore

    with TraceStore(trace_url(trace_db)) as store:
        print(f"{store.location} has schema version {SCHEMA_VERSION}")
