"""Collecting an outcome table: ask every model of a graph about labelled rows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from cascade.confidence import estimate, judge
from cascade.confidence.measurement import measured
from cascade.config.load import LoadedGraph, load_graph
from cascade.errors import RequestError
from cascade.graph.ask import ask
from cascade.lab.tables.formats import json_line
from cascade.lab.tables.labels import check_labels, is_right, label_set
from cascade.lab.tables.outcomes import parse_outcomes, read_outcomes
from cascade.lab.tables.rows import LabelledRow, labelled_rows, rows_name
from cascade.models.base import Model
from cascade.policy.calibrate import Calibration
from cascade.policy.table import Outcomes
from cascade.records import Request
from cascade.run import BackgroundLoop, Cascade, build_models
from cascade.spec.schema import Graph, Stage

T = TypeVar("T")
OnProgress = Callable[[int, int], object]  # (rows done, rows in all)
OnNote = Callable[[str], object]


def collect_outcomes(
    graph: str | Path,
    data: str | Path | Iterable[LabelledRow],
    out: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    concurrency: int = 8,
    on_progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> Outcomes:
    """Ask every model of a graph about labelled rows, and write an outcome table.

    Each finished row is synced to disk. Rows that `out` already holds are kept and not asked again, so an
    interrupted collection continues where it stopped.

    Args:
        graph: the graph file.
        data: a file with `text` and `label` (.jsonl, .csv, .tsv or .parquet), or the rows themselves.
        out: the table, a .jsonl file.
        text: the column of the requests, if it is not `text`.
        label: the column of the right answers, if it is not `label`.
        concurrency: how many rows are in flight at once.
        on_progress: called with (rows done, rows in all), first before any row is asked.
        on_note: called with each remark: labels that no model can answer, a model that cannot be asked, kept
            rows that lack a model.

    Returns:
        The whole table, kept rows included.

    Raises:
        ConfigError: the graph is invalid.
        RequestError: rows are invalid, most of their labels are none that a model can answer, `out` holds
            other rows or cannot be written, or no model can be asked.
    """
    out = Path(out)
    if out.suffix.lower() != ".jsonl":
        raise RequestError(f"{out}: rows are appended one by one; give a .jsonl file for --out")
    rows = labelled_rows(data, text, label)
    loaded = load_graph(graph, tuned=False, tightened=False)
    on_note = on_note or (lambda _: None)
    remark = check_labels(
        [row.label for row in rows], label_set(loaded, answering_models(loaded.graph)), rows_name(data)
    )
    if remark:
        on_note(f"note: {remark}")
    kept = _kept_rows(out)
    done = _check_kept(kept, rows, out)
    todo = [row for row in rows if row.id not in done]
    run_to_end(_collect(loaded, todo, kept, out, concurrency, on_progress, on_note))
    return read_outcomes(out)


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` on an event loop of its own, which also works where one runs already (notebooks)."""
    loop = BackgroundLoop()
    try:
        return loop.run(coroutine)
    finally:
        loop.close()


@asynccontextmanager
async def open_models(loaded: LoadedGraph, names: Iterable[str]) -> AsyncIterator[dict[str, Model]]:
    """Build the models called `names`, and close them in the end."""
    models = build_models(loaded, Cascade, names)
    try:
        yield models
    finally:
        await asyncio.gather(*(model.aclose() for model in models.values()))


def _kept_rows(out: Path) -> Outcomes | None:
    """Return the rows of an earlier, perhaps interrupted collection; None if there are none."""
    try:
        data = out.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestError(f"{out}: {error.strerror}; give a writable file for --out") from None
    complete = data[: data.rfind(b"\n") + 1]
    kept = parse_outcomes(out, complete) if complete.strip() else None
    if len(complete) < len(data):  # the last row was cut off while it was being written
        with out.open("r+b") as file:
            file.truncate(len(complete))
    return kept


def _check_kept(kept: Outcomes | None, rows: Sequence[LabelledRow], out: Path) -> set[str]:
    """Return the ids that need not be asked again; refuse a table of other rows."""
    if kept is None:
        return set()
    wanted = {row.id: row for row in rows}
    labels = kept.fields.get("label", [""] * len(kept))
    for name, prompt, label in zip(kept.ids, kept.prompts, labels, strict=True):
        row = wanted.get(name)
        if row is None or (prompt, label) != (row.text, row.label):
            reason = "is not in the data" if row is None else "has another text or label in the data"
            raise RequestError(
                f"{out}: kept row {name!r} {reason}; give another file for --out, or remove it"
            )
    return set(kept.ids)


async def _collect(
    loaded: LoadedGraph,
    rows: Sequence[LabelledRow],
    kept: Outcomes | None,
    out: Path,
    concurrency: int,
    on_progress: OnProgress | None,
    on_note: OnNote,
) -> None:
    async with open_models(loaded, answering_models(loaded.graph)) as models:
        usable = _usable(models, on_note)
        if kept is not None:
            _note_gaps(kept, usable, out, on_note)
        done = 0 if kept is None else len(kept)
        total = done + len(rows)
        with _open_table(out) as table:
            if on_progress is not None:
                on_progress(done, total)

            def keep(row: dict[str, Any]) -> None:
                nonlocal done
                _append(table, row)
                done += 1
                if on_progress is not None:
                    on_progress(done, total)

            await ask_all(how_asked(loaded.graph, usable, loaded.calibrations), rows, keep, concurrency)


def _usable(models: Mapping[str, Model], on_note: OnNote) -> dict[str, Model]:
    reasons = {name: model.unavailable() for name, model in models.items()}
    for name, reason in reasons.items():
        if reason is not None:
            on_note(f"left out: {name}: {reason}")
    usable = {name: model for name, model in models.items() if reasons[name] is None}
    if not usable:
        raise RequestError("no model of the graph can be asked now, so there is nothing to collect")
    return usable


def _note_gaps(kept: Outcomes, names: Iterable[str], out: Path, on_note: OnNote) -> None:
    for name in names:
        columns = kept.models.get(name)
        missing = len(kept) if columns is None else int(np.isnan(columns.cost_usd).sum())
        if missing:
            on_note(f"note: {missing} kept rows lack {name}; remove them from {out} to ask again")


def _open_table(out: Path) -> TextIO:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return out.open("a", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{out}: {error.strerror}; give a writable file for --out") from None


def _append(table: TextIO, row: dict[str, Any]) -> None:
    """Write one row and sync it to disk."""
    try:
        table.write(json_line(row))
        table.flush()
        os.fsync(table.fileno())
    except OSError as error:
        raise RequestError(f"{table.name}: {error.strerror}; the rows before are kept") from error


@dataclass(frozen=True)
class Asked:
    """A model, and the stage that asks it alone, if there is one.

    The stage sets the number of samples and the confidence check. Without one the model is asked once, and
    only its signals are reported.
    """

    model: Model
    stage: Stage | None
    calibration: Calibration | None


def answering_models(graph: Graph) -> list[str]:
    """Return the models of `graph` whose answers can be collected, in the order in which stages ask them.

    Gate models give no answers, and people are not asked about a whole table.
    """
    asked = dict.fromkeys(name for stage in graph.stages for name in stage.ask)
    return [name for name in asked if not graph.models[name].is_person]


def how_asked(
    graph: Graph, models: Mapping[str, Model], calibrations: Mapping[str, Calibration]
) -> list[Asked]:
    """Return how each of `models` is asked."""
    asked = []
    for name, model in models.items():
        stage = next((stage for stage in graph.stages if stage.ask == [name]), None)
        asked.append(Asked(model, stage, calibrations.get(stage.name) if stage else None))
    return asked


async def ask_all(
    asked: Sequence[Asked],
    rows: Iterable[LabelledRow],
    keep: Callable[[dict[str, Any]], None],
    concurrency: int,
) -> None:
    """Ask every model about every row, at most `concurrency` rows at a time, and `keep` each finished row.

    An answer is right if it equals the label (`normalise`). A failed call is not an error:
    the model is listed in the row's `failed`.
    """
    todo = iter(rows)

    async def work() -> None:
        for row in todo:  # the workers share one iterator
            outcomes = await asyncio.gather(*(_outcome(one, row) for one in asked))
            keep(_row(row, dict(zip((one.model.name for one in asked), outcomes, strict=True))))

    workers = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:  # a worker that could not keep its row stops the others
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _row(row: LabelledRow, outcomes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    models = {name: entry for name, entry in outcomes.items() if "correct" in entry}
    failed = {name: entry for name, entry in outcomes.items() if "correct" not in entry}
    fields = {"id": row.id, "prompt": row.text, "label": row.label, "models": models}
    return fields | ({"failed": failed} if failed else {})


async def _outcome(asked: Asked, row: LabelledRow) -> dict[str, Any]:
    samples = asked.stage.samples if asked.stage else 1
    request = Request(text=row.text)
    asks = await asyncio.gather(*(ask(asked.model, request, sample=sample) for sample in range(samples)))
    calls, replies = [call for call, _ in asks], [reply for _, reply in asks]
    paid = {
        "cost_usd": round(sum(call.cost_usd for call in calls), 12),
        "seconds": round(max(call.seconds for call in calls), 6),
    }
    check = asked.stage.confidence if asked.stage else None
    try:
        judged = None
        if check is not None:
            judged = estimate(check, await judge(check, row.text, calls, replies), asked.calibration)
        measurement = measured(calls, replies, judged)
    except Exception as error:  # noqa: BLE001 - the calls are paid: the row says so, and why it has no figures
        return paid | {"error": f"confidence: {type(error).__name__}: {error}"}
    if measurement is None:
        return paid | {"error": calls[0].error or "no answer"}
    text = calls[measurement.chosen].text
    entry = {"correct": int(is_right(text, row.label)), **paid, "text": text}
    if calls[measurement.chosen].truncated:
        entry["truncated"] = True
    if measurement.signals:
        entry["signals"] = measurement.signals
    if measurement.confidence is not None:
        entry["confidence"] = measurement.confidence
    return entry
