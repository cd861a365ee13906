"""From a file of labelled rows to an expert, its card, its graph, and a certificate or a refusal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cascade.config.references import bundled_path
from cascade.errors import RequestError
from cascade.lab.fitting.embed import embed_texts
from cascade.lab.learning.data import Data, read_source, read_test, read_texts
from cascade.lab.learning.graph_out import check_replaceable
from cascade.lab.learning.result import Judged, Learned, Made, assess, finish
from cascade.lab.learning.session import Note, Report, Session
from cascade.lab.learning.settings import (
    DELTA,
    MAX_RISK,
    MINUTES,
    LearnSettings,
    check_installed,
    check_settings,
    goal_of,
    task_name,
)
from cascade.lab.learning.sizes import Material, Size, pick_size
from cascade.lab.learning.split import Split, split_rows
from cascade.lab.learning.store import Store
from cascade.lab.learning.vectors import CHUNK, Matrix, Vectors
from cascade.lab.reading.from_traces import TraceOptions
from cascade.lab.reading.row_reading import RowOptions

ENCODER = "encoder"  # the bundled one
MAX_TOKENS = 256
_EMBEDDING_SHARE = 0.6  # of the time, at most
_TIME_AGAIN = 1.5  # times what training took must be left for training again
_ROOM = 64_000_000  # bytes of disk: the expert with its draft, and what --resume needs


def learn(
    source: str | Path,
    *,
    out: str | Path | None = None,
    graph_out: str | Path | None = None,
    text: str | None = None,
    label: str | None = None,
    size: str | None = None,
    minutes: float = MINUTES,
    max_risk: float = MAX_RISK,
    delta: float = DELTA,
    test: str | Path | None = None,
    unlabelled: str | Path | None = None,
    rows: RowOptions | None = None,
    traces: TraceOptions | None = None,
    seed: int = 0,
    resume: bool = False,
    on_progress: Report | None = None,
    on_note: Note | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Learned:
    """Learn an expert from labelled rows; write it, its card and a graph that asks it first.

    Each file is replaced whole, the expert first. What an interrupted call has done is kept beside it. The
    same rows, settings and versions give the same expert, byte for byte.

    Args:
        source: a file of labelled rows: .csv, .tsv, .jsonl or .parquet; with `traces` a graph.
        out: the expert to write; default: `experts/NAME.gguf`, with `traces` `experts/NAME-learned.gguf`.
        graph_out: the graph to write; default: named alike.
        text, label: the columns of the texts and of the labels; default: guessed.
        size: `head`, `tuned`, `tiny` or `auto`; default: the best of what is installed.
        minutes: how long it may take.
        max_risk, delta: the promise: at most this share of its answers is wrong, but for a chance of delta.
        test: labelled rows that the promise is checked on; default: rows of `source`, as many as it needs.
        unlabelled: texts without labels, for the sizes that use them.
        rows: what else is told of the rows: columns of slices and of groups, encoding, rare labels.
        traces: learn from the stored runs of the graph; the latest rows are held out.
        seed: seed of every random choice.
        resume: go on with what an interrupted call has left.
        on_progress: called with a stage and the share of it that is done.
        on_note: called with each line about the rows and each remark.
        stopped: asked now and then whether to end with the best so far.

    Raises:
        RequestError: the rows or the settings do not do, a file may not be replaced or written.
        StoppedError: it was stopped, or the time was up, before there was an expert.
        ConfigError: the extra `learn` is not installed.
        ModelError: llama.cpp cannot load the encoder.
    """
    check_installed()
    source, name = Path(source), task_name(Path(source)) + ("" if traces is None else "-learned")
    settings = LearnSettings(
        out=Path("experts") / f"{name}.gguf" if out is None else Path(out),
        graph_out=Path("graphs") / f"{name}.yaml" if graph_out is None else Path(graph_out),
        text=text, label=label, size=size, minutes=minutes, max_risk=max_risk, delta=delta,
        test=_path(test), unlabelled=_path(unlabelled),
        rows=rows or RowOptions(), traces=traces, seed=seed, resume=resume,
    )  # fmt: skip
    return learn_with(source, settings, Session(minutes, on_progress, on_note, stopped))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def learn_with(source: Path, settings: LearnSettings, session: Session) -> Learned:
    """Make an expert out of the labelled rows in `source`, with everything that belongs to it.

    Raises:
        RequestError, StoppedError, ModelError: as `learn`.
    """
    _check(source, settings)
    size, train = pick_size(settings.size)
    session.report("reading", 0.0)
    found, rows = read_source(source, settings, session)
    test = None if settings.test is None else read_test(settings.test, settings, found, session)
    unlabelled = found.unlabelled
    if settings.unlabelled is not None:
        unlabelled = [*unlabelled, *read_texts(settings.unlabelled, found.columns.text)]
    store = Store(settings.out, resume=settings.resume, note=session.note)
    keep = True  # for --resume, if anything fails
    try:
        _check_room(settings.out)
        material = Material(settings, unlabelled, session, store, _vectors(session, store))
        tested = [] if test is None else test[1].texts
        rows = _in_time(rows, tested, material)
        split = _split(rows, tested, material)
        session.note(f"{len(split.train):,} rows train, {len(split.held_out):,} are held out: {split.reason}")
        start = session.seconds
        trained = train(rows.take(split.train), material)
        judged = assess(Made(source, settings, found, rows, split, test, size, trained), session)
        if session.seconds_left() > _TIME_AGAIN * (session.seconds - start):
            judged = _on_all_rows(judged, train, material)
        learned = finish(judged, session)
        keep = learned.cut_short == "stopped"
    finally:
        store.close(keep=keep)
    return learned


def _on_all_rows(judged: Judged, train: Size, material: Material) -> Judged:
    """Return the expert itself where it keeps the promise; else one that all rows have trained.

    Rows that were held out in vain had better train. What is promised of it is nothing either way.
    """
    made, refusal = judged.made, judged.verdict.refusal
    tried = len(made.split.held_out)
    if refusal is None or not tried:
        return judged
    everything, nothing = np.arange(len(made.rows), dtype=np.intp), np.zeros(0, dtype=np.intp)
    split = Split(everything, nothing, f"{tried:,} held-out rows did not support the promise, so all train")
    material.session.note(split.reason)
    trained = train(made.rows, material)
    again = assess(replace(made, split=split, trained=trained), material.session)
    return replace(again, verdict=replace(again.verdict, refusal=refusal))


def _check(source: Path, settings: LearnSettings) -> None:
    """Refuse, before anything is read, what could not be written or would destroy a file that is needed."""
    check_settings(settings)
    given = {"FILE": source, "--test": settings.test, "--unlabelled": settings.unlabelled}
    for what, path in given.items():
        for made in (settings.out, settings.card, settings.graph_out):
            if path is not None and made.exists() and path.exists() and made.samefile(path):
                raise RequestError(f"{made} is {what} itself and would be replaced; give another --out")
    check_replaceable(settings.graph_out)


def _check_room(out: Path) -> None:
    free = shutil.disk_usage(out.parent).free
    if free < _ROOM:
        text = f"{out.parent}: {free / 1e6:.0f} MB of disk are free and about {_ROOM / 1e6:.0f} MB are needed"
        raise RequestError(f"{text}; make room, or give an --out elsewhere")


def _vectors(session: Session, store: Store) -> Vectors:
    encoder = bundled_path(ENCODER)

    def embed(texts: Sequence[str], report: Callable[[float], None]) -> Matrix:
        made: Matrix = embed_texts(encoder, texts, MAX_TOKENS, lambda _, share: report(share), None)
        return made

    return Vectors(encoder, MAX_TOKENS, embed, session, store)


def _in_time(rows: Data, tested: Sequence[str], material: Material) -> Data:
    """Return as many rows as can be embedded in time, judging by the first ones; those stand for all.

    The texts of test rows must be embedded in any case.
    """
    material.vectors.expected = len(rows) + len(tested)
    material.vectors.of(rows.texts[:CHUNK])
    seconds = _EMBEDDING_SHARE * 60.0 * material.settings.minutes
    limit = max(CHUNK, int(seconds * material.vectors.texts_per_second) - len(tested))
    if len(rows) <= limit:
        return rows
    material.session.note(
        f"warning: {limit:,} of {len(rows):,} rows are used, as {material.settings.minutes:g} minutes allow; "
        "give more --minutes"
    )
    material.session.cut_short = "time"
    material.vectors.expected = limit + len(tested)
    return rows.take(np.arange(limit, dtype=np.intp))


def _split(rows: Data, tested: Sequence[str], material: Material) -> Split:
    settings = material.settings
    everything, nothing = np.arange(len(rows), dtype=np.intp), np.zeros(0, dtype=np.intp)
    if tested:
        material.vectors.of([*rows.texts, *tested])  # while there is still time to stop
        return Split(everything, nothing, f"the promise is checked on {settings.test}")
    vectors = material.vectors.of(rows.texts)
    return split_rows(
        vectors,
        rows.labels,
        rows.groups,
        goal_of(settings),
        settings.seed,
        times=rows.times,
        asked=rows.asked,
    )
