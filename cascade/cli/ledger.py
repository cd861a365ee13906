"""`cascade trace verify`, `head` and `upgrade`: whether what is stored is what was stored."""

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
        str | None, typer.Option(help="What `cascade trace head` printed earlier; it must still be there.")
    ] = None,
    key_file: KeyFile = None,
    json_: Json = False,
    trace_db: TraceDb = None,
) -> None:
    """Check that no stored run or grade was edited, removed or reordered; exit status 1 if one was."""
    from cascade.trace import read_key
    from cascade.trace import verify as check

    key = read_key(key_file)
    found = check(trace_url(trace_db), anchor=anchor, key=key)
    if json_:
        print_json(found.model_dump(mode="json"))
    else:
        for problem in found.problems:
            print(problem)
        if found.count > len(found.problems):
            print(f"… and {found.count - len(found.problems)} more problems")
        print(_summary(found.model_dump(), signed=key is not None, anchored=anchor is not None))
    if found.count:
        raise typer.Exit(1)


def _summary(found: dict[str, int], *, signed: bool, anchored: bool) -> str:
    lines = [
        f"{found['runs']} runs and {found['grades']} grades checked against {found['entries']} entries of "
        f"the ledger ({found['pruned']} pruned, {found['replaced']} replaced by their outcome): "
        + (f"{found['count']} problems" if found["count"] else "all as they were stored"),
        f"head: {found['head']} (entry {found['last']})",
    ]
    if signed:
        lines.append(f"{found['signed']} entries signed with this key")
    else:
        lines.append("signatures not checked (no key): who made every entry anew would not be found out")
    if not anchored:
        lines.append("no anchor given: an end that was cut off would not be found out")
    return "\n".join(lines)


def head(json_: Json = False, trace_db: TraceDb = None) -> None:
    """Print the last link of the ledger: kept elsewhere, it is an anchor for `verify`."""
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
