"""Calibrating a stage: ask it about labelled rows, grade its answers, fit the map, and measure the fit."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cascade.config.load import LoadedGraph, load_graph
from cascade.config.messages import suggest
from cascade.errors import ConfigError, RequestError
from cascade.explain import describe
from cascade.extras import require
from cascade.graph.stage import Plan, run_stage
from cascade.lab.evaluation.metrics import Figure, accuracy, auroc, brier, ece
from cascade.lab.evaluation.remarks import brier_change, no_better_than_one_answer, worse_than_raw
from cascade.lab.tables.collect import OnNote, OnProgress, open_models, run_to_end
from cascade.lab.tables.labels import check_labels, is_right, label_set
from cascade.lab.tables.rows import LabelledRow, labelled_rows, rows_name
from cascade.policy.calibrate import Calibration, Method, cross_fit, fit, thin, write_calibration
from cascade.policy.trials import with_canary
from cascade.records import Request
from cascade.spec.kinds import ConfidenceSettings
from cascade.spec.parts import Limits
from cascade.spec.schema import Stage

# With 30 rows, each of five folds holds 6 rows and is judged by a map fitted on 24. With 5 wrong answers,
# each of these maps has seen about 4. Fewer say nothing reliable.
MIN_ROWS = 30
MIN_OF_EACH = 5


@dataclass(frozen=True)
class Graded:
    """The uncalibrated scores of a stage's answers, and whether each answer was right.

    `missing` says why each of the other rows has no score: its call failed, or the signal was not measured.
    `answers` and `labels` are the texts that were compared.
    """

    scores: list[float]
    correct: list[bool]
    missing: list[str]
    answers: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """What a calibration belongs to: the confidence method, the data and the model."""

    check: ConfidenceSettings
    data_sha256: str
    model_fingerprint: str


@dataclass(frozen=True)
class CalibrationRun:
    """A calibration, the graded answers that it was fitted on, and the file that it was written to.

    `change` is by how much the cross-fitted confidence changes the Brier score of the raw score, with a 95 %
    interval over rows: below 0 it is better. `remarks` say what is worth nothing: a calibration that is worse
    than the raw score, a model that always gives the same answer.
    """

    calibration: Calibration
    graded: Graded
    path: Path
    change: Figure
    remarks: tuple[str, ...] = ()


def calibrate(
    graph: str | Path,
    stage: str,
    data: str | Path | Iterable[LabelledRow],
    *,
    text: str | None = None,
    label: str | None = None,
    model: str | None = None,
    out: str | Path | None = None,
    method: Method = "isotonic",
    seed: int = 0,
    concurrency: int = 8,
    on_progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> CalibrationRun:
    """Ask a stage about labelled rows that its model was not trained on, and fit its calibration.

    Args:
        graph: the graph file.
        stage: the name of the stage.
        data: a file with `text` and `label` (.jsonl, .csv, .tsv or .parquet), or the rows themselves.
        text: the column of the requests, if it is not `text`.
        label: the column of the right answers, if it is not `label`.
        model: ask this model of the graph in place of the stage's own: its canary, or what is to be promoted.
        out: the file to write; default: the `calibration` that the stage, or its canary, names.
        method: how to fit the map.
        seed: seed of the cross-fitting folds.
        concurrency: how many rows are in flight at once.
        on_progress: called with (rows done, rows in all).
        on_note: called with each remark: labels that the model cannot answer.

    Raises:
        ConfigError: the graph is invalid, or the stage cannot be calibrated.
        RequestError: rows are invalid or too few, most of their labels are none that the model can answer, or
            there is no file to write.
    """
    require("scipy", "cascade calibrate", "tune")  # now, and not after all rows have been asked and paid for
    loaded = load_graph(graph, calibrated=False, tightened=False)
    chosen, check = _checked_stage(loaded, stage, model)
    target = _target(loaded, check, out)
    rows = [(row.text, row.label) for row in labelled_rows(data, text, label)]
    remark = check_labels([label for _, label in rows], label_set(loaded, chosen.ask), rows_name(data))
    if remark and on_note is not None:
        on_note(f"note: {remark}")
    graded = run_to_end(_ask_stage(loaded, chosen, rows, concurrency, on_progress))
    source = Source(check, rows_sha256(rows), loaded.fingerprint(chosen.ask[0]))
    fitted = fit_calibration(graded, source, method=method, seed=seed)
    write_calibration(fitted, target)
    held_out = cross_fit(method, graded.scores, graded.correct, seed=seed)
    change = brier_change(held_out, graded.scores, graded.correct, seed=seed)
    return CalibrationRun(fitted, graded, target, change, tuple(_remarks(chosen, graded, change, seed)))


def _remarks(stage: Stage, graded: Graded, change: Figure, seed: int) -> Iterator[str]:
    worse = worse_than_raw(change, "rows that it was not fitted on")
    if worse:
        yield worse
    same = no_better_than_one_answer(graded.answers, graded.labels, graded.correct, seed=seed)
    if same:
        yield f"{stage.ask[0]} {same}"


def _checked_stage(loaded: LoadedGraph, name: str, model: str | None) -> tuple[Stage, ConfidenceSettings]:
    """Return the stage called `name`, asking `model` if one is given, and its confidence, if it can be
    calibrated.
    """
    names = [stage.name for stage in loaded.graph.stages]
    if name not in names:
        raise ConfigError(f"{loaded.path}: unknown stage {name!r}; known: {', '.join(names)}")
    stage = loaded.graph.stage(name)
    if model is not None:
        stage = _asking(loaded, stage, model)
    if stage.confidence is None:
        raise ConfigError(
            f"{loaded.path}: stage {name!r} has no 'confidence', so there is nothing to calibrate"
        )
    if len(stage.ask) != 1:
        asked = ", ".join(stage.ask) or "nobody"
        raise ConfigError(f"{loaded.path}: stage {name!r} asks {asked}; a calibration belongs to one model")
    if loaded.graph.models[stage.ask[0]].is_person:
        raise ConfigError(f"{loaded.path}: stage {name!r} asks a person, whose answers have no score")
    return stage, stage.confidence


def _asking(loaded: LoadedGraph, stage: Stage, model: str) -> Stage:
    """Return `stage` with `model` in place of its own."""
    if model not in loaded.graph.models:
        raise ConfigError(f"{loaded.path}: unknown model {model!r}; {suggest(model, loaded.graph.models)}")
    if stage.canary is not None and stage.canary.model == model:
        return with_canary(stage)
    check = stage.confidence
    if check is not None and stage.ask != [model]:  # the file that it names belongs to the other model
        check = check.model_copy(update={"calibration": None})
    return stage.model_copy(update={"ask": [model], "confidence": check})


def _target(loaded: LoadedGraph, check: ConfidenceSettings, out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    if check.calibration is None:
        raise RequestError("no file to write; give --out, or 'calibration' in the stage's confidence")
    return loaded.base / check.calibration


async def _ask_stage(
    loaded: LoadedGraph,
    stage: Stage,
    rows: Sequence[tuple[str, str]],
    concurrency: int,
    on_progress: OnProgress | None,
) -> Graded:
    needed = [*stage.ask, *stage.gate_models]
    done = 0

    def on_row() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, len(rows))

    async with open_models(loaded, needed) as models:
        plan = Plan(loaded.graph, models, {})
        return await grade(plan, stage, rows, concurrency=concurrency, on_row=on_row)


async def grade(
    plan: Plan,
    stage: Stage,
    rows: Sequence[tuple[str, str]],
    *,
    concurrency: int = 8,
    on_row: Callable[[], object] = lambda: None,
) -> Graded:
    """Ask `stage` about every (text, label), at most `concurrency` at a time.

    An answer is right if it equals the label (`normalise`). The graph's limits and
    calibrations do not apply. `on_row` is called after each row.
    """
    unlimited = Plan(plan.graph.model_copy(update={"limits": Limits()}), plan.models, {})
    slots = asyncio.Semaphore(concurrency)

    async def ask_one(text: str, label: str) -> tuple[float, str, str] | str:
        async with slots:
            step = await run_stage(unlimited, stage, Request(text=text), ())
        on_row()
        if step.estimate is None:
            errors = [call.error for call in step.calls if call.error]
            return errors[0] if errors else describe(step.decision) or step.decision.rule
        answer = step.calls[step.estimate.chosen].text
        return step.estimate.score, answer, label

    outcomes = await asyncio.gather(*(ask_one(text, label) for text, label in rows))
    graded = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    return Graded(
        scores=[score for score, _, _ in graded],
        correct=[is_right(answer, label) for _, answer, label in graded],
        missing=[outcome for outcome in outcomes if isinstance(outcome, str)],
        answers=[answer for _, answer, _ in graded],
        labels=[label for _, _, label in graded],
    )


def fit_calibration(
    graded: Graded, source: Source, *, method: Method = "isotonic", seed: int = 0
) -> Calibration:
    """Fit a map on all graded rows, and measure it on cross-fitted confidences.

    Raises:
        RequestError: there are too few rows, or too few right or wrong answers among them.
    """
    _check_enough(graded)
    held_out = cross_fit(method, graded.scores, graded.correct, seed=seed)
    curve = fit(method, graded.scores, graded.correct)
    return Calibration(
        **curve.model_dump(),
        by=source.check.by,
        signal=source.check.signal_name,
        rows=len(graded.scores),
        accuracy=round(accuracy(graded.correct), 6),
        auroc=round(auroc(held_out, graded.correct), 6),
        ece=round(ece(held_out, graded.correct), 6),
        brier=round(brier(held_out, graded.correct), 6),
        data_sha256=source.data_sha256,
        model_fingerprint=source.model_fingerprint,
        fitted=datetime.now(UTC).date().isoformat(),
        scores=thin(graded.scores),
    )


def rows_sha256(rows: Sequence[tuple[str, str]]) -> str:
    """Return the SHA-256 (hex) of (text, label) rows, written as one JSON list a line."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_enough(graded: Graded) -> None:
    rows, right = len(graded.correct), sum(graded.correct)
    missing = (
        f"; {len(graded.missing)} more have no score, the first: {graded.missing[0]}"
        if graded.missing
        else ""
    )
    if rows < MIN_ROWS:
        raise RequestError(f"{rows} rows have a score, a calibration needs {MIN_ROWS}{missing}")
    if not right and graded.answers:
        seen = f"{graded.answers[0][:60]!r} for {graded.labels[0][:60]!r}"
        raise RequestError(
            f"0 of {rows} answers are right, a calibration needs {MIN_OF_EACH}; the first answer was {seen}: "
            f"if the labels are not what the model should answer, --label COL names another column{missing}"
        )
    for count, kind in [(right, "right"), (rows - right, "wrong")]:
        if count >= MIN_OF_EACH:
            continue
        needed = f"about {math.ceil(rows * MIN_OF_EACH / count)} rows like these" if count else "other rows"
        raise RequestError(
            f"{count} of {rows} answers are {kind}, a calibration needs {MIN_OF_EACH}: give {needed}, "
            f"or {'easier' if kind == 'right' else 'harder'} ones{missing}"
        )
