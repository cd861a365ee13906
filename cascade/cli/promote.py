"""`cascade promote` and `cascade rollback`: a proved model in place of another, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli.options import TraceDb, trace_url

if TYPE_CHECKING:
    from cascade.lab import Promoted, PromotionTest

REFUSED = 3  # exit status: the runs do not prove it

_Graph = Annotated[Path, typer.Argument(help="Graph file.", metavar="GRAPH")]
_DryRun = Annotated[bool, typer.Option(help="Show the change, and make none.")]


def promote(
    graph: _Graph,
    stage: Annotated[str, typer.Argument(help="Name of the stage.", metavar="STAGE")],
    to: Annotated[str, typer.Option(help="The stage's shadow, to be its model from now on.")],
    epsilon: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="How much less accurate it may be.")
    ] = 0.02,
    delta: Annotated[
        float, typer.Option(min=1e-9, max=0.5, help="Probability of promoting one that is worse by more.")
    ] = 0.05,
    calibration: Annotated[
        str | None, typer.Option(help="Its calibration file, as the graph names it; default: its canary's.")
    ] = None,
    accept: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="The stage's threshold from now on.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Runs that started then or later; default: all of this graph version.")
    ] = None,
    dry_run: _DryRun = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trace_db: TraceDb = None,
) -> None:
    """Put the shadow of STAGE in place of its model, if stored runs prove that it is not worse.

    Exit status 3: they do not; nothing is written.
    """
    from cascade import lab

    promoted = lab.promote(
        graph, stage, to, epsilon=epsilon, delta=delta, calibration=calibration, accept=accept, since=since,
        dry_run=dry_run, trace_db=trace_url(trace_db),
    )  # fmt: skip
    if json_:
        values = {**promoted.test.as_json(), "done": promoted.done, "diff": promoted.diff}
        print(json.dumps(values | {"history": str(promoted.history) if promoted.done else None}))
    else:
        _print(promoted, graph)
    if promoted.test.verdict != "not worse":
        raise typer.Exit(REFUSED)


def rollback(graph: _Graph, dry_run: _DryRun = False) -> None:
    """Undo the newest promotion in GRAPH; a file that was edited since is left as it is."""
    from cascade import lab

    promotion, diff = lab.rollback(graph, dry_run=dry_run)
    print(diff, end="")
    done = "would ask" if dry_run else "asks"
    print(f"{promotion.stage} {done} {promotion.old} again; {promotion.new} was promoted at {promotion.at}")


def _print(promoted: Promoted, graph: Path) -> None:
    test = promoted.test
    for line in _lines(test):
        print(line)
    if test.verdict == "not worse":
        print(promoted.diff, end="")
        print(
            f"promoted: {test.stage} asks {test.rows.new}; undo: cascade rollback {graph}"
            if promoted.done
            else "dry run: nothing is written"
        )
        return
    if test.verdict == "worse":
        print(f"refused: {test.rows.new} is worse by more than {test.epsilon:g}; remove it, or train it anew")
        return
    more = test.rows_needed
    rest = (
        f"about {more:,} more rows like these would"
        if more is not None
        else "more rows like these never will"
    )
    print(f"refused: {test.e_value:.3g} is less than the {1 / test.delta:g} that proves it; {rest}")


def _lines(test: PromotionTest) -> list[str]:
    rows, pairs = test.rows, test.rows.pairs
    low, high = test.interval
    told = ", ".join(
        f"{count} by {'a ' if by != 'nothing' else ''}{by}" for by, count in rows.told_by.items()
    )
    lines = [
        f"{test.stage}: {rows.new} beside {rows.old} on {pairs.rows:.0f} rows of {test.graph}",
        f"  worse {pairs.worse:.0f}, equal {pairs.equal:.0f}, better {pairs.better:.0f}; "
        f"difference {pairs.mean:+.4f} ({low:+.4f} to {high:+.4f} at {1 - test.delta:.3g})",
        f"  evidence that it is not worse by {test.epsilon:g}: {test.e_value:.3g} of {1 / test.delta:g}",
    ]
    if told:
        lines.append(f"  what is right was told: {told}")
    if rows.unproved:
        lines.append(f"  {rows.unproved} rows differ and nothing tells who is right; they count against it")
    if rows.failed:
        lines.append(f"  it gave no answer on {rows.failed} rows")
    if rows.uncounted:
        why = "neither graded nor drawn for an audit, so no fair sample (audit_rate)"
        lines.append(f"  not counted: {rows.uncounted} rows that are {why}")
    lines += [f"  left out by rule {rule}: {count} runs" for rule, count in rows.left_out.items()]
    return lines
