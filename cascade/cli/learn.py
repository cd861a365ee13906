"""`cascade learn`: from a file of labelled rows to an expert, a graph, and a certificate or a refusal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.cards import card_lines
from cascade.cli.options import Json, print_json
from cascade.errors import RequestError
from cascade.explain.formatting import printable

if TYPE_CHECKING:
    from types import FrameType

    from cascade.lab import Learned

STOPPED = 130  # exit status: there is no expert yet


Rows = Annotated[Path, typer.Argument(help="Labelled rows (.csv, .tsv, .jsonl …).", metavar="FILE")]
TextColumn = Annotated[
    str | None, typer.Option("--text", metavar="COL", help="Column of the texts; default: guessed.")
]
LabelColumn = Annotated[
    str | None, typer.Option("--label", metavar="COL", help="Column of the labels; default: guessed.")
]
Out = Annotated[Path | None, typer.Option(help="Expert to write (.gguf); default: experts/FILE.gguf.")]
GraphOut = Annotated[Path | None, typer.Option(help="Graph to write; default: graphs/FILE.yaml.")]
Size = Annotated[
    str | None, typer.Option(help="head, tuned, tiny or auto; default: the best of what is installed.")
]
Minutes = Annotated[float, typer.Option(help="How long it may take.")]
MaxRisk = Annotated[
    float, typer.Option(help="Promise: at most this share of what the expert answers is wrong.")
]
Delta = Annotated[float, typer.Option(help="Chance that the promise may be broken.")]
Test = Annotated[
    Path | None,
    typer.Option(help="Rows that the promise is checked on; default: some of FILE are held out."),
]
Unlabelled = Annotated[Path | None, typer.Option(help="Texts without labels, for the sizes that use them.")]
SliceColumn = Annotated[
    str | None, typer.Option("--slice", metavar="COL", help="Report figures for each value of a column.")
]
GroupColumn = Annotated[
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


def learn(
    file: Rows,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    out: Out = None,
    size: Size = None,
    minutes: Minutes = 20.0,
    max_risk: MaxRisk = 0.02,
    delta: Delta = 0.1,
    test: Test = None,
    graph_out: GraphOut = None,
    unlabelled: Unlabelled = None,
    slice_column: SliceColumn = None,
    group_column: GroupColumn = None,
    min_rows: MinRows = 5,
    drop_rare: DropRare = False,
    merge_labels: MergeLabels = False,
    encoding: Encoding = None,
    separator: Separator = None,
    seed: Seed = 0,
    resume: Resume = False,
    schema: Schema = None,
    json_: Json = False,
) -> None:
    """Learn an expert from labelled rows, certify it or say what is missing, and write a graph that uses it.

    Ctrl-C ends with the best expert so far; once more ends at once.
    """
    from cascade import lab

    if schema is not None:
        given = {"--size": size, "--unlabelled": unlabelled, "--slice": slice_column, "--group": group_column,
                 "--resume": resume, "--drop-rare": drop_rare, "--merge-labels": merge_labels,
                 "--encoding": encoding, "--separator": separator}  # fmt: skip
        if wrong := [option for option, value in given.items() if value]:
            raise RequestError(f"{wrong[0]} has no effect with --schema; leave it out")
        options = {"text": text_column, "label": label_column, "out": out, "graph_out": graph_out}
        numbers = {"max_risk": max_risk, "delta": delta, "test": test, "seed": seed}
        return _learn_fields(file, schema, options | numbers, json_=json_)
    rows = lab.RowOptions(slice_column, group_column, encoding, separator, min_rows, drop_rare, merge_labels)
    try:
        with stopping() as stopped, progress() as on_progress:
            learned = lab.learn(
                file, out=out, graph_out=graph_out, text=text_column, label=label_column, size=size,
                minutes=minutes, max_risk=max_risk, delta=delta, test=test, unlabelled=unlabelled,
                rows=rows, seed=seed, resume=resume, on_progress=on_progress, stopped=stopped,
                on_note=lambda note: print(printable(note), file=sys.stderr),
            )  # fmt: skip
    except lab.StoppedError as error:
        print(printable(str(error)), file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    if json_:
        print_json(learned.as_json())
    else:
        _print(learned)
    return None


def _learn_fields(file: Path, schema: Path, options: dict[str, Any], *, json_: bool) -> None:
    """Learn to answer with a JSON object; Ctrl-C ends at once, and nothing is written."""
    from cascade.lab.evaluation.formatting import percent
    from cascade.lab.learning.learn_fields import learn_fields

    def note(text: str) -> None:
        print(printable(text), file=sys.stderr)

    with progress() as on_progress:
        learned = learn_fields(file, schema, on_progress=on_progress, on_note=note, **options)
    card = learned.card
    if json_:
        return print_json({"expert": str(learned.expert), "graph": str(learned.graph), "card": card})
    found = card["figures"]["held_out"] or card["figures"]["cross_fitted"]
    print(f"expert     {printable(str(learned.expert))} ({card['bytes'] / 1e6:.1f} MB)")
    for name, part in ({"whole answer": found} | found["fields"]).items():
        low, high = part["accuracy_ci"]
        right = f"right {percent(part['accuracy'])} ({percent(low)} to {percent(high)})"
        print(f"{printable(name):<20} {right}, calibration error {part['ece']:.3f}")
    promise = card["promise"]
    made, refused = promise["certificate"], promise["refused"]
    print(f"promise    {'certified' if made else f'refused: {refused}'}")
    print(
        f"graph      {printable(str(learned.graph))}: its answer counts from confidence {card['accept']:g} on"
    )
    return None


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Yield whether Ctrl-C was typed; the second one interrupts as usual."""
    asked = False

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        os.write(sys.stderr.fileno(), b"stopping with the best so far; once more ends at once\n")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """Yield a callback (stage, share of it) that shows how much is done and how long the rest takes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from cascade.lab.learning.session import overall

    columns = TextColumn("{task.description:<9}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    # Not on a terminal the bar would only leave an empty line behind.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=overall(stage, share))


def _print(learned: Learned) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for title, text in _lines(learned):
        console.print(f"{title:<11}{printable(text)}")


def _lines(learned: Learned) -> Iterator[tuple[str, str]]:
    """Yield what was made, as a title and a text each."""
    from cascade.lab.evaluation.formatting import duration

    card = learned.card
    cut = {"stopped": ", stopped early", "time": ", cut short by --minutes"}.get(learned.cut_short or "", "")
    size = f"{card['bytes'] / 1e6:.1f} MB"
    yield "expert", f"{learned.expert} ({card['size']}, {size}, {duration(card['seconds'])}{cut})"
    yield from card_lines(card)
    yield "card", str(learned.card_path)
    yield "graph", f"{learned.graph}: the expert's answer counts from confidence {card['accept']:g} on"
    for index, command in enumerate(learned.commands):
        yield "next" if not index else "", command
