"""An outcome table from the graded runs of a trace store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from cascade.confidence.measurement import draft_of, recorded
from cascade.confidence.same import normalise
from cascade.errors import RequestError
from cascade.lab.tables.cells import parse_table, read_file, refuse
from cascade.lab.tables.outcomes import from_rows, is_field, write_outcomes
from cascade.policy.table import Outcomes
from cascade.records import Call, Result, Step
from cascade.trace import RunFilter, TraceStore, default_url

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class Grade(NamedTuple):
    """The quality, 0 to 1, of a run's answer (its best draft if it gave none), or of the draft of `model`."""

    run: str
    model: str | None
    quality: float


def outcomes_from_traces(
    out: str | Path,
    *,
    grades: str | Path | Iterable[Grade] | None = None,
    graph: str | None = None,
    trace_db: str | None = None,
) -> Outcomes:
    """Write an outcome table of graded runs. No model is asked.

    Args:
        out: the table, a .jsonl, .csv or .parquet file.
        grades: a .jsonl file of `run` and `correct` (see `read_grades`), or the grades themselves; default:
            the newest grade of each run in the trace store.
        graph: take only stored grades of this graph, NAME or NAME@DIGEST; not together with `grades`.
        trace_db: the trace store, a SQLAlchemy URL or a file; default: the usual one.

    Returns:
        The table.

    Raises:
        RequestError: there is no graded run, grades are invalid, or `out` cannot be written.
        TraceError: the trace store cannot be read.
    """
    if grades is not None and graph is not None:
        raise RequestError("--grades names the runs; leave out --graph-name")
    with TraceStore(default_url() if trace_db is None else trace_db, create=False) as store:
        if grades is None:
            grades = stored_grades(store, graph)
        elif isinstance(grades, str | Path):
            grades = read_grades(grades)
        by_run = groupby(sorted(grades, key=lambda grade: grade.run), lambda grade: grade.run)
        rows = [graded_row(store.get(run), list(own)) for run, own in by_run]
    write_outcomes(rows, out)
    return from_rows(rows)


def read_grades(path: str | Path) -> list[Grade]:
    """Read rows `{"run", "correct": 0|1 | "quality": 0..1, "model"?}` of a file.

    Raises:
        RequestError: the file cannot be read, or rows are invalid; all are listed, as `file:line: problem`.
    """
    path = Path(path)
    grades: list[Grade] = []
    problems: list[str] = []
    taken: set[tuple[str, str | None]] = set()
    table = parse_table(str(path), read_file(path, "a .jsonl or .csv file of grades"))
    for line, cells in table.rows:
        row = cells if table.columns is None else _with_numbers(cells)
        problem = _problem(row)
        if problem is None and isinstance(row, dict):
            quality = float(row["correct"] if "correct" in row else row["quality"])
            grade = Grade(row["run"], row.get("model"), quality)
            if grade[:2] not in taken:
                taken.add(grade[:2])
                grades.append(grade)
                continue
            problem = f"run {grade.run!r} is graded twice; keep one of the rows"
        problems.append(f"{path}:{line}: {problem}")
    refuse(problems)
    if not grades:
        raise RequestError(f'{path}: no rows; expected lines like {{"run": "01J8…", "correct": 1}}')
    return grades


def stored_grades(store: TraceStore, graph: str | None) -> list[Grade]:
    """Return `newest_grades`.

    Raises:
        RequestError: there is none.
        TraceError: the store cannot be read.
    """
    grades = newest_grades(store, graph)
    if not grades:
        raise RequestError(f"no graded run in {store.location}; see 'cascade grade', or give --grades FILE")
    return grades


def newest_grades(store: TraceStore, graph: str | None) -> list[Grade]:
    """Return the newest grade of every graded run of `graph` (a name, or `name@digest`), or of all graphs.

    Raises:
        TraceError: the store cannot be read.
    """
    newest = store.newest_grades(RunFilter(graph=graph))
    return [Grade(run, None, float(correct)) for run, correct in newest.items()]


def graded_row(result: Result, grades: Sequence[Grade]) -> dict[str, Any]:
    """Return the row of one run with its grades.

    The row holds each model that answered in the run and whose draft has a known grade: the draft was graded
    itself; or it is the run's answer (`normalise`); or the answer was right and the draft is
    another label of a closed set, hence wrong. Whatever cannot be known is absent.

    Raises:
        RequestError: a grade is for an answer that the run does not have.
    """
    own = {grade.model: grade.quality for grade in grades}
    if None in own and _answer(result) is None:
        raise RequestError(f"run {result.run!r} has no answer and no draft, so there is nothing to grade")
    drafts = model_drafts(result.trace)
    if unknown := sorted(name for name in own if name is not None and name not in drafts):
        known = ", ".join(drafts) or "none"
        raise RequestError(f"run {result.run!r} has no answer of model {unknown[0]!r}; known: {known}")
    models = {}
    for name, draft in drafts.items():
        quality = own.get(name, _inferred(draft.call, result, own.get(None)))
        if quality is not None:
            models[name] = _entry(draft, quality)
    metadata = {key: value for key, value in result.request.metadata.items() if is_field(key, value)}
    row: dict[str, Any] = {**metadata, "id": result.run, "graph": result.graph, "models": models}
    return row if _HASH.fullmatch(result.request.text) else row | {"prompt": result.request.text}


class ModelDraft(NamedTuple):
    """A model's last answer in a run, its step, and the cost and time of all the model's calls."""

    call: Call
    step: Step
    cost_usd: float
    seconds: float


def model_drafts(trace: Iterable[Step]) -> dict[str, ModelDraft]:
    """Return each model's last answer."""
    drafts: dict[str, ModelDraft] = {}
    for step in trace:
        for name in dict.fromkeys(call.model for call in step.calls if call.role == "answer"):
            calls = [call for call in step.calls if call.role == "answer" and call.model == name]
            before = drafts.get(name)
            if all(call.error is not None or call.invalid is not None for call in calls):
                continue
            drafts[name] = ModelDraft(
                draft_of(step, name),
                step,
                sum(call.cost_usd for call in calls) + (before.cost_usd if before else 0.0),
                max(call.seconds for call in calls) + (before.seconds if before else 0.0),
            )
    return drafts


def _answer(result: Result) -> str | None:
    return result.draft if result.text is None else result.text


def _inferred(call: Call, result: Result, answer_quality: float | None) -> float | None:
    answer = _answer(result)
    if answer_quality is None or answer is None:
        return None
    if normalise(call.text) == normalise(answer):
        return answer_quality
    return 0.0 if answer_quality == 1.0 and call.labels is not None else None


def _entry(draft: ModelDraft, quality: float) -> dict[str, Any]:
    call, measurement = draft.call, recorded(draft.step, draft.call)
    graded: dict[str, Any] = {"correct": int(quality)} if quality in (0.0, 1.0) else {"quality": quality}
    entry = graded | {"cost_usd": round(draft.cost_usd, 12), "seconds": round(draft.seconds, 6)}
    if not _HASH.fullmatch(call.text):
        entry["text"] = call.text
    if call.truncated:
        entry["truncated"] = True
    if measurement.confidence is not None:
        entry["confidence"] = measurement.confidence
    if measurement.signals:
        entry["signals"] = dict(measurement.signals)
    return entry


def _with_numbers(cells: Mapping[str, Any] | RequestError) -> Mapping[str, Any] | RequestError:
    """Return the cells with the grades, which are texts in CSV, as numbers."""
    if isinstance(cells, RequestError):
        return cells
    return {name: _number(cell) if name in ("correct", "quality") else cell for name, cell in cells.items()}


def _number(cell: object) -> object:
    """Return the number that a text is, or else the text."""
    if not isinstance(cell, str):
        return cell
    try:
        return int(cell) if cell.strip() in ("0", "1") else float(cell)
    except ValueError:
        return cell


def _problem(row: Mapping[str, Any] | RequestError) -> str | None:
    """Return what is wrong with a row of grades; None if nothing is."""
    if isinstance(row, RequestError):
        return str(row)
    if not isinstance(row, dict):
        return f"expected an object with 'run' and 'correct', got {type(row).__name__}"
    if unknown := sorted(row.keys() - {"run", "model", "correct", "quality"}):
        return f"unknown key {unknown[0]!r}; known: run, model, correct, quality"
    if not isinstance(row.get("run"), str) or not row["run"]:
        return f"run is {row.get('run')!r}; expected a run's id"
    if not isinstance(row.get("model", ""), str):
        return f"model is {row['model']!r}; expected a model's name, or leave it out"
    if ("correct" in row) == ("quality" in row):
        return f"{'both' if 'correct' in row else 'neither'} of 'correct' and 'quality'; give one of them"
    if "correct" in row and (row["correct"] not in (0, 1) or not isinstance(row["correct"], int)):
        return f"correct is {row['correct']!r}; expected 0 or 1"
    quality = row.get("quality", 0)
    if not isinstance(quality, int | float) or isinstance(quality, bool) or not 0 <= quality <= 1:
        return f"quality is {quality!r}; expected a number from 0 to 1"
    return None
