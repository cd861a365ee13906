"""`cascade learn`: from a file of labelled rows to an expert, a graph, and a certificate or a refusal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cascade.cli import learn_options as options
from cascade.cli.cards import card_lines
from cascade.cli.options import Json, TraceDb, print_json
from cascade.explain.formatting import printable

if TYPE_CHECKING:
    from types import FrameType

    from cascade.lab import Learned, TraceOptions

STOPPED = 130  # exit status: there is no expert yet


def learn(
    file: options.File = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    out: options.Out = None,
    size: options.Size = None,
    minutes: options.Minutes = 20.0,
    max_risk: options.MaxRisk = 0.02,
    delta: options.Delta = 0.1,
    test: options.Test = None,
    graph_out: options.GraphOut = None,
    unlabelled: options.Unlabelled = None,
    slice_column: options.Slice = None,
    group_column: options.Group = None,
    min_rows: options.MinRows = 5,
    drop_rare: options.DropRare = False,
    merge_labels: options.MergeLabels = False,
    encoding: options.Encoding = None,
    separator: options.Separator = None,
    from_traces: options.FromTraces = None,
    since: options.Since = None,
    allow_private: options.AllowPrivate = False,
    trace_db: TraceDb = None,
    ask: options.Ask = None,
    seed: options.Seed = 0,
    resume: options.Resume = False,
    schema: options.Schema = None,
    json_: Json = False,
) -> None:
    """Learn an expert from labelled rows, certify it or say what is missing, and write a graph that uses it.

    Ctrl-C ends with the best expert so far; once more ends at once.
    """
    from cascade import lab

    told: dict[str, Any]
    if schema is not None:
        options.check_with_schema({
            "--size": size, "--unlabelled": unlabelled, "--slice": slice_column, "--group": group_column,
            "--resume": resume, "--drop-rare": drop_rare, "--merge-labels": merge_labels, "--ask": ask,
            "--encoding": encoding, "--separator": separator, "--from-traces": from_traces,
        })  # fmt: skip
        told = {"text": text_column, "label": label_column, "out": out, "graph_out": graph_out, "seed": seed}
        told |= {"max_risk": max_risk, "delta": delta, "test": test}
        return _learn_fields(options.pick_file(file), schema, told, json_=json_)
    rows = lab.RowOptions(slice_column, group_column, encoding, separator, min_rows, drop_rare, merge_labels)
    source, traces = options.pick_source(file, from_traces, since, trace_db, allow_private=allow_private)
    told = {
        "text": text_column, "label": label_column, "unlabelled": unlabelled, "rows": rows, "traces": traces,
        "seed": seed, "minutes": minutes,
    }  # fmt: skip
    if ask is not None:
        return _ask(source, ask, traces, told)
    with _following() as follow:
        learned = lab.learn(
            source, out=out, graph_out=graph_out, size=size, max_risk=max_risk, delta=delta, test=test,
            resume=resume, **told, **follow,
        )  # fmt: skip
    return print_json(learned.as_json()) if json_ else _print(learned)


def _learn_fields(file: Path, schema: Path, told: dict[str, Any], *, json_: bool) -> None:
    """Learn to answer with a JSON object; Ctrl-C ends at once, and nothing is written."""
    from cascade.lab.evaluation.formatting import percent
    from cascade.lab.learning.learn_fields import learn_fields

    def note(text: str) -> None:
        print(printable(text), file=sys.stderr)

    with progress() as on_progress:
        learned = learn_fields(file, schema, on_progress=on_progress, on_note=note, **told)
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


def _ask(source: Path, count: int, traces: TraceOptions | None, told: Mapping[str, Any]) -> None:
    from cascade import lab
    from cascade.cli.asking import ask_about, check_person

    check_person(source, traces)
    with _following() as follow:
        picked = lab.pick_questions(source, count, **told, **follow)
    ask_about(source, picked, traces)


@contextmanager
def _following() -> Iterator[dict[str, Any]]:
    """Yield what shows progress and remarks and listens to Ctrl-C; what it stopped ends with status 130."""
    from cascade import lab

    def on_note(note: str) -> None:
        print(printable(note), file=sys.stderr)

    try:
        with stopping() as stopped, progress() as on_progress:
            yield {"on_progress": on_progress, "on_note": on_note, "stopped": stopped}
    except lab.StoppedError as error:
        print(printable(str(error)), file=sys.stderr)
        raise typer.Exit(STOPPED) from None


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
