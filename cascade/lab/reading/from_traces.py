"""Labelled rows from the stored runs of a graph: what a person said, was graded, or a teacher answered.

Each row says who made its label, because they are not worth the same. A student that learns from a teacher's
answers never beats the teacher on those labels, and a figure measured on them is agreement, not truth.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from cascade.confidence.same import normalise
from cascade.config.load import LoadedGraph, load_graph
from cascade.errors import RequestError
from cascade.explain.formatting import is_hash, parse_since
from cascade.lab.reading.answers import answers_path, join_answers, read_answers
from cascade.lab.reading.columns import Columns
from cascade.lab.reading.label_checks import label_problem
from cascade.lab.reading.near_duplicates import normal_form
from cascade.lab.reading.row_reading import Place, ReadRows, RowOptions
from cascade.lab.reading.sources import (
    AGREEMENT,
    GRADE,
    PERSON,
    TEACHER,
    TRUSTED,
    WORDS,
    teacher_share,
    teaching,
)
from cascade.lab.reading.survey import Survey, survey_rows
from cascade.lab.tables.graded import model_drafts, newest_grades
from cascade.lab.tables.labels import asked_models, label_set
from cascade.lab.tables.rows import LabelledRow
from cascade.records import Result
from cascade.trace import RunFilter, TraceStore, default_url, history

ASKED = "person"  # the model of the graph that asks a person


class TraceOptions(NamedTuple):
    """Which stored runs to learn from.

    Attributes:
        since: only runs that started then or later: ISO 8601 or an age (`30d`).
        trace_db: the trace store, a SQLAlchemy URL or a file; None: the usual one.
        allow_private: take runs of requests that must stay on this machine (`local_only`), too.
    """

    since: str | None = None
    trace_db: str | None = None
    allow_private: bool = False


class _Truth(NamedTuple):
    answer: str
    source: str


@dataclass
class _Gathering:
    """What is known so far of the runs of a graph.

    Attributes:
        teachers: models of the top tier.
        labels: the closed set, by `normalise`; empty if the models answer freely, and then grows.
        closed: whether the set is closed.
        grades: run → whether its answer was right.
        found: (start, run, text, label, source) of each usable run.
        left_out: reason → runs.
        teacher: whether the teacher was right, for each graded run that tells.
    """

    teachers: frozenset[str]
    labels: dict[str, str]
    closed: bool
    grades: Mapping[str, float]
    found: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    teacher: list[bool] = field(default_factory=list)

    def add(self, result: Result, allow_private: bool, people: frozenset[str]) -> None:
        """Take one run, in which the models `people` are persons, or count why it is left out."""
        drafts = {name: draft.call.text for name, draft in model_drafts(result.trace).items()}
        self._judge_teacher(result, drafts)
        reason = _unusable(result, allow_private)
        truth = None if reason else self._truth(result, drafts, people)
        label = None if truth is None else self._label(truth.answer)
        if truth is None or label is None:
            self.left_out[
                reason or ("answered with no label" if truth else self._untold(result, len(drafts)))
            ] += 1
            return
        self.found.append((result.started, result.run, result.request.text, label, truth.source))

    def _truth(self, result: Result, drafts: Mapping[str, str], people: frozenset[str]) -> _Truth | None:
        """Return the answer that counts as right, from the most trusted source that there is."""
        grade, answer = self.grades.get(result.run), _answer(result)
        wrong = None if answer is None or grade != 0.0 else normalise(answer)
        if grade == 1.0 and answer is not None:
            return _Truth(answer, PERSON if result.model in people else GRADE)
        usable = {name: text for name, text in drafts.items() if normalise(text) != wrong}
        for names, source in ((people, PERSON), (self.teachers, TEACHER)):
            if said := [usable[name] for name in usable if name in names]:
                return _Truth(said[-1], source)
        counts = Counter(normalise(text) for text in usable.values())
        if wrong is None and len(counts) == 1 and len(usable) > 1:
            return _Truth(next(iter(usable.values())), AGREEMENT)
        return None

    def _untold(self, result: Result, answers: int) -> str:
        if self.grades.get(result.run) == 0.0:
            return "graded wrong"
        return "on which models disagree" if answers > 1 else "answered by one model alone, ungraded"

    def _label(self, answer: str) -> str | None:
        key, label = normalise(answer), " ".join(answer.split())
        if key in self.labels or self.closed:
            return self.labels.get(key)
        if not label or label_problem(label, "label"):
            return None
        return self.labels.setdefault(key, label)

    def _judge_teacher(self, result: Result, drafts: Mapping[str, str]) -> None:
        grade, answer = self.grades.get(result.run), _answer(result)
        said = next((drafts[name] for name in drafts if name in self.teachers), None)
        if grade is None or answer is None or said is None:
            return
        same = normalise(said) == normalise(answer)
        if grade == 1.0 or same:  # another answer than a wrong one may be right or wrong
            self.teacher.append(same and grade == 1.0)


def survey_traces(graph: str | Path, options: RowOptions, traces: TraceOptions) -> Survey:
    """Look through the rows that the stored runs of a graph tell; see `rows_from_traces`.

    Raises:
        ConfigError, RequestError, TraceError: as there; or nothing can be learned from the rows.
    """
    return survey_rows(f"runs of {graph}", rows_from_traces(graph, traces), options)


def rows_from_traces(graph: str | Path, traces: TraceOptions) -> ReadRows:
    """Return the rows that the stored runs of a graph tell, the oldest first. No model is asked.

    A run's label is its answer if that was graded right; or a person's answer; or that of a model of the last
    stage that asks models, the top tier; or the one that at least two models agree on. An answer that was
    graded wrong is no label. Where a person or a grade speaks of a text, other sources of the same text do
    not count. Answers to the questions of `cascade learn --ask` (`asking_name`) are a person's.

    Args:
        graph: the graph's file; runs of all its versions count.
        traces: which of them.

    Raises:
        ConfigError: the graph is invalid.
        RequestError: no run tells a label, or `since` is no time.
        TraceError: the trace store cannot be read.
    """
    loaded = load_graph(graph)
    url, name = default_url() if traces.trace_db is None else traces.trace_db, loaded.graph.name
    after = parse_since(traces.since)
    with TraceStore(url, create=False) as store:
        grades = {grade.run: grade.quality for grade in newest_grades(store, name)}
        location = store.location
    people, gathering = _gathering(loaded, grades)
    for result in history(url, RunFilter(graph=name, since=after)):
        gathering.add(result, traces.allow_private, people)
    asked = RunFilter(graph=asking_name(name), status="accepted")
    for result in history(url, asked):
        gathering.add(result, traces.allow_private, frozenset([ASKED]))
    where = f"{name} in {location}"
    if not gathering.found:
        raise RequestError(
            f"no run of {where} tells a label{_left_out(gathering.left_out)}; {_advice(gathering)}"
        )
    read = join_answers(_as_rows(gathering, where), read_answers(answers_path(Path(graph))))
    return replace(read, remarks=(*_remarks(read, gathering), *read.remarks))


def asking_name(name: str) -> str:
    """Return the name of the graph that asks a person about texts of the graph `name`."""
    return f"{name}-ask"


def _gathering(loaded: LoadedGraph, grades: Mapping[str, float]) -> tuple[frozenset[str], _Gathering]:
    models = loaded.graph.models
    people = frozenset(name for name, model in models.items() if model.is_person)
    asking = [set(stage.ask) - people for stage in loaded.graph.stages]
    teachers = next((frozenset(names) for names in reversed(asking) if names), frozenset())
    closed = label_set(loaded, asked_models(loaded)).labels
    labels = {normalise(label): label for label in closed}
    return people, _Gathering(teachers, labels, bool(closed), grades)


def _answer(result: Result) -> str | None:
    return result.draft if result.text is None else result.text


def _unusable(result: Result, allow_private: bool) -> str | None:
    """Return why a run's text is not used; None if it is."""
    request = result.request
    if request.local_only and not allow_private:
        return "private (local_only; --allow-private takes them)"
    if is_hash(request.text):
        return "stored without their text"
    if len(request.messages) > 1 or request.tools or request.output_schema is not None:
        return "conversations, or asked for JSON or tools"
    return None


def _as_rows(gathering: _Gathering, where: str) -> ReadRows:
    said = {normal_form(text) for _, _, text, _, source in gathering.found if source in TRUSTED}
    rows = ReadRows(Columns("text", "label"), form=f"runs of {where}", unit="run")
    digest = hashlib.sha256()
    for started, run, text, label, source in sorted(gathering.found):
        if source not in TRUSTED and normal_form(text) in said:
            gathering.left_out["overruled by a person or a grade"] += 1
            continue
        rows.rows.append(LabelledRow(run, text, label))
        rows.places.append(Place(len(rows.rows), source=source, time=started))
        digest.update(json.dumps([run, text, label, source]).encode())
    rows.sha256 = digest.hexdigest()
    rows.teacher_graded = (sum(gathering.teacher), len(gathering.teacher))
    return rows


def _remarks(rows: ReadRows, gathering: _Gathering) -> Iterator[str]:
    counts = Counter(place.source or "" for place in rows.places)
    parts = [f"{counts[source]:,} {WORDS[source]}" for source in WORDS if counts[source]]
    yield f"labels: {', '.join(parts)}"
    if gathering.left_out:
        yield _left_out(gathering.left_out).removeprefix("; ")
    if share := teacher_share(counts, len(rows.rows)):
        yield teaching(share, *rows.teacher_graded)


def _left_out(reasons: Counter[str]) -> str:
    parts = [f"{count:,} {reason}" for reason, count in reasons.most_common()]
    return f"; left out: {', '.join(parts)}" if parts else ""


def _advice(gathering: _Gathering) -> str:
    if not gathering.left_out:
        return "run the graph, or give another --trace-db"
    return "grade answers (cascade grade), audit stages (audit_rate), or let a person answer (--ask)"
