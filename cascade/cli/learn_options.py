"""The options of `cascade learn`, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.errors import RequestError

if TYPE_CHECKING:
    from cascade.lab.reading.from_traces import TraceOptions

File = Annotated[Path | None, typer.Argument(help="Labelled rows (.csv, .tsv, .jsonl …).", metavar="FILE")]
FromTraces = Annotated[
    Path | None,
    typer.Option("--from-traces", metavar="GRAPH", help="Learn from a graph's stored runs instead of FILE."),
]
Since = Annotated[
    str | None, typer.Option(help="With --from-traces: runs since then, ISO 8601 or an age such as 30d.")
]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private", help="With --from-traces: also requests that must stay here.")
]
Ask = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Put the N most valuable texts before a person; train nothing."),
]
TextColumn = Annotated[
    str | None, typer.Option("--text", metavar="COL", help="Column of the texts; default: guessed.")
]
LabelColumn = Annotated[
    str | None, typer.Option("--label", metavar="COL", help="Column of the labels; default: guessed.")
]
Out = Annotated[Path | None, typer.Option(help="Expert to write (.gguf); default: experts/FILE.gguf.")]
Size = Annotated[
    str | None, typer.Option(help="head, tuned, tiny or auto; default: the best of what is installed.")
]
Minutes = Annotated[float, typer.Option(help="How long it may take.")]
MaxRisk = Annotated[
    float, typer.Option(help="Promise: at most this share of what the expert answers is wrong.")
]
Delta = Annotated[float, typer.Option(help="Chance that the promise may be broken.")]
Test = Annotated[
    Path | None, typer.Option(help="Rows that the promise is checked on; default: some of FILE are held out.")
]
GraphOut = Annotated[Path | None, typer.Option(help="Graph to write; default: graphs/FILE.yaml.")]
Unlabelled = Annotated[
    Path | None, typer.Option(help="Texts without labels, for the sizes that use them, and for --ask.")
]
Slice = Annotated[
    str | None, typer.Option("--slice", metavar="COL", help="Report figures for each value of a column.")
]
Group = Annotated[
    str | None, typer.Option("--group", metavar="COL", help="Keep rows of one document or customer together.")
]
MinRows = Annotated[int, typer.Option(min=2, help="Rows that each label needs.")]
DropRare = Annotated[
    bool, typer.Option("--drop-rare", help="Leave out labels with fewer rows, instead of refusing.")
]
MergeLabels = Annotated[
    bool, typer.Option("--merge-labels", help="Take labels that differ in case or spaces for one.")
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of FILE, if a guess is wrong.")]
Separator = Annotated[str | None, typer.Option(help="Between cells, if a guess is wrong.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the split and the folds.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what an interrupted call has left beside --out.")
]
Schema = Annotated[
    Path | None,
    typer.Option(help="Flat JSON Schema: learn to answer with such an object; FILE has its fields."),
]


def check_with_schema(given: Mapping[str, object]) -> None:
    """Refuse options that have no effect together with --schema.

    Raises:
        RequestError: one of them is given.
    """
    if wrong := [option for option, value in given.items() if value]:
        raise RequestError(f"{wrong[0]} has no effect with --schema; leave it out")


def pick_file(file: Path | None) -> Path:
    """Return the file of rows.

    Raises:
        RequestError: none is given.
    """
    if file is None:
        raise RequestError("give a FILE of rows")
    return file


def pick_source(
    file: Path | None, graph: Path | None, since: str | None, trace_db: str | None, *, allow_private: bool
) -> tuple[Path, TraceOptions | None]:
    """Return what to learn from, and which stored runs if it is a graph.

    Raises:
        RequestError: nothing or both are given, or an option has no use.
    """
    from cascade.lab.reading.from_traces import TraceOptions

    if (file is None) == (graph is None):
        both = "both are given" if file is not None else "neither is given"
        raise RequestError(f"learn from a FILE of rows, or --from-traces GRAPH; {both}")
    if graph is not None:
        return graph, TraceOptions(since, trace_db, allow_private)
    unused = {"--since": since, "--trace-db": trace_db, "--allow-private": allow_private or None}
    for option, value in unused.items():
        if value is not None:
            raise RequestError(f"{option} is for --from-traces GRAPH; leave it out")
    return pick_file(file), None
