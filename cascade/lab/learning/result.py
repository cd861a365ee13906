"""What a call of `learn` ends with: the judged expert, its card and its graph, written whole."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cascade.errors import RequestError
from cascade.files import replace_file
from cascade.lab.learning import card as cards
from cascade.lab.learning.card import Answered
from cascade.lab.learning.certify import Verdict, judge
from cascade.lab.learning.data import Data
from cascade.lab.learning.graph_out import graph_text
from cascade.lab.learning.session import Session
from cascade.lab.learning.settings import LearnSettings, goal_of
from cascade.lab.learning.sizes import Answers, Trained
from cascade.lab.learning.split import Indices, Split, counted
from cascade.lab.reading.sources import teacher_interval, teacher_share, teaching
from cascade.lab.reading.survey import Survey

_SAMPLE_CHARACTERS = 80


@dataclass(frozen=True)
class Learned:
    """What `learn` has made.

    Attributes:
        expert: the GGUF file.
        graph: the graph's file.
        card_path: the card beside the expert.
        card: the card: figures, promise, data, versions; as in the file, with its hash, the date and seconds.
        verdict: the threshold with its certificate or refusal.
        commands: what to type next.
        cut_short: why it is not as good as it could be, `stopped` or `time`; None: it is finished.
    """

    expert: Path
    graph: Path
    card_path: Path
    card: dict[str, Any]
    verdict: Verdict
    commands: tuple[str, ...]
    cut_short: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "expert": str(self.expert),
            "graph": str(self.graph),
            "card": self.card,
            "card_path": str(self.card_path),
            "certified": self.verdict.certificate is not None,
            "cut_short": self.cut_short,
            "next": list(self.commands),
        }


@dataclass(frozen=True)
class Made:
    """A trained expert and all that its card tells.

    Attributes:
        source: the file that was learned from.
        settings: what was asked for.
        found: what the file holds.
        rows: the rows that were used.
        split: which of them train.
        test: the file of test rows, as surveyed and as used; None without one.
        size: the name of the expert's size.
        trained: the expert.
    """

    source: Path
    settings: LearnSettings
    found: Survey
    rows: Data
    split: Split
    test: tuple[Survey, Data] | None
    size: str
    trained: Trained

    @property
    def tested(self) -> Data:
        """The rows that fitted nothing."""
        return self.rows.take(self.split.held_out) if self.test is None else self.test[1]


@dataclass(frozen=True)
class Judged:
    """A trained expert with what it said of rows that it had not seen, and what may be promised."""

    made: Made
    parts: Mapping[str, Answered]
    verdict: Verdict


def assess(made: Made, session: Session) -> Judged:
    """Judge a trained expert on rows that it has not seen."""
    session.report("measuring", 0.0)
    parts = _parts(made, session)
    graded = [parts[name].graded(made.trained.labels) for name in ("cross_fitted", "held_out")]
    verdict = judge(graded[0], graded[1], goal_of(made.settings))
    session.report("measuring", 1.0)
    return Judged(made, parts, verdict)


def finish(judged: Judged, session: Session) -> Learned:
    """Write a judged expert with its card and its graph.

    Raises:
        RequestError: a file cannot be written; an older one of its name is as it was.
    """
    made, parts, verdict = judged.made, judged.parts, judged.verdict
    settings, trained = made.settings, made.trained
    card = _card(made, parts, verdict, session.cut_short)
    note = card["data"].get("teacher_note")
    graph = graph_text(settings, made.source.name, trained.labels, trained.confidence, verdict, note)
    session.report("writing", 0.0)
    beside = _write(made, card, graph, session)
    session.report("writing", 1.0)
    return Learned(
        expert=settings.out,
        graph=settings.graph_out,
        card_path=settings.card,
        card=beside,
        verdict=verdict,
        commands=_commands(made, parts, verdict),
        cut_short=session.cut_short,
    )


def _parts(made: Made, session: Session) -> dict[str, Answered]:
    """Return each row with an answer from a fit that had not seen it."""
    train, tested = made.rows.take(made.split.train), made.tested
    own = train.take(made.trained.rows)
    answers = made.trained.answers(tested.texts, session)
    return {
        "cross_fitted": _answered(own, made.trained.scores),
        "held_out": _answered(tested, answers),
    }


def _answered(rows: Data, answers: Answers) -> Answered:
    everything: Indices = np.arange(len(rows), dtype=np.intp)
    return Answered(rows.texts, rows.labels, answers, rows.slices, counted(everything, rows.groups))


def _card(
    made: Made, parts: Mapping[str, Answered], verdict: Verdict, cut_short: str | None
) -> dict[str, Any]:
    """Return the card as it stands in the expert's file: nothing in it differs between two equal calls."""
    settings, labels = made.settings, made.trained.labels
    seen = [part for part in parts.values() if part.truth]
    card = {
        "version": 1,
        "task": settings.task,
        "size": made.size,
        "labels": len(labels),
        "data": _data(made),
        "accept": verdict.accept,
        "promise": cards.promise(verdict, settings.max_risk, settings.delta),
        "figures": {
            name: cards.figures(part, labels, verdict.accept, settings.max_risk, settings.seed)
            if part.truth
            else None
            for name, part in parts.items()
        },
        "confused": cards.confusions(seen, labels),
        "slice": settings.rows.slice,
        "slices": cards.slice_table(seen, labels, verdict.accept),
        "cut_short": cut_short,
        "chosen": dict(made.trained.notes),
        "seed": settings.seed,
        "versions": cards.versions(),
    }
    return cards.rounded(card)


def _data(made: Made) -> dict[str, Any]:
    found = made.found
    return {
        "file": made.source.name,
        "sha256": found.sha256,
        "rows": len(found.rows),
        "used": len(made.rows),
        "train": len(made.split.train),
        "held_out": len(made.split.held_out),
        "split": made.split.reason,
        "test_file": None if made.settings.test is None else made.settings.test.name,
        "test_sha256": None if made.test is None else made.test[0].sha256,
        "test_rows": None if made.test is None else len(made.test[1]),
        "duplicates": found.duplicates,
        "near_duplicates": found.near_duplicates,
        "contradictions": len(found.contradictions),
        "rows_of_label": found.counts,
        **_truth(found),
    }


def _truth(found: Survey) -> dict[str, Any]:
    """Return who made the labels, and what the teacher is worth, where several sources did."""
    if not found.sources:
        return {}
    share, (right, graded) = teacher_share(found.sources, len(found.rows)), found.teacher_graded
    return {
        "labels_by": found.sources,
        "teacher_share": share,
        "teacher_right": {"runs": graded, "right": right, "ci": teacher_interval(right, graded)}
        if graded
        else None,
        "teacher_note": teaching(share, right, graded) if share else None,
    }


def _write(made: Made, card: dict[str, Any], graph: str, session: Session) -> dict[str, Any]:
    """Write the expert, then what tells of it; return the card beside it.

    Raises:
        RequestError: a file cannot be written.
    """
    settings = made.settings
    try:
        made.trained.write(settings.out, settings.task, card)
        data = settings.out.read_bytes()
        beside = card | {
            "file": settings.out.name,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "seconds": round(session.seconds, 1),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        replace_file(settings.card, (json.dumps(beside, indent=2, ensure_ascii=False) + "\n").encode())
        replace_file(settings.graph_out, graph.encode())
    except OSError as error:
        where, why = error.filename or settings.out, error.strerror or error
        raise RequestError(
            f"{where}: {why}; nothing half-written is left. Make room or give another --out, "
            "and --resume writes it without training again"
        ) from error
    return beside


def _commands(made: Made, parts: Mapping[str, Answered], verdict: Verdict) -> tuple[str, ...]:
    """Return the three commands that come next."""
    graph = shlex.quote(str(made.settings.graph_out))
    text = _sample([parts["held_out"], parts["cross_fitted"]], made.trained.labels, verdict.accept)
    third = f"cascade serve {graph}"
    if verdict.refusal is not None and verdict.refusal.rows is not None:
        option = "" if made.settings.traces is None else "--from-traces "
        third = f"cascade learn {option}{shlex.quote(str(made.source))} --test MORE.csv"
    return f"cascade run {graph} {shlex.quote(text)}", "cascade trace explain last", third


def _sample(parts: Sequence[Answered], labels: Sequence[str], accept: float) -> str:
    """Return a short text that the expert answers rightly, if it can be: the surest one."""
    best = (-1.0, "hello")
    for part in parts:
        for text, right, confidence in zip(
            part.texts, part.correct(labels).tolist(), part.answers.confidence.tolist(), strict=True
        ):
            short = len(text) <= _SAMPLE_CHARACTERS and text.isprintable() and "'" not in text
            if short and right and confidence > best[0]:
                best = (confidence, text)
        if best[0] >= accept:
            break
    return best[1]
