"""Outcome tables: what each model answered on each labelled row, whether it was right, and what it cost.

One JSON object a line (CSV and Parquet hold the same as columns, see `cascade.lab.tables.formats`):

    {"id", "prompt"?, "label"?,
     "models": {NAME: {"correct": 0|1 | "quality": 0..1, "cost_usd", "seconds"?, "text"?,
                       "signals"?: {NAME: number}, "confidence"?: 0..1, "truncated"?: true}},
     "failed"?: {NAME: {"cost_usd", "seconds"?, "error"?}}, FIELD?: text, number or boolean …}

What was not measured is absent, never 0. A model that was not asked about a row is absent from it. One that
was asked and gave no answer is in `failed`, with its cost.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cascade.errors import RequestError
from cascade.files import replace_file
from cascade.lab.tables.cells import read_file, refuse
from cascade.lab.tables.formats import format_rows, parse_file
from cascade.policy.table import Column, ModelOutcomes, Outcomes

_MAX_NUMBER = 1e300  # infinities and integers too large for a float are beyond it
_KEYS = ("id", "prompt", "label", "models", "failed")
_ENTRY = ("correct", "quality", "cost_usd", "seconds", "text", "signals", "confidence", "truncated")
_FAILED = ("cost_usd", "seconds", "error")


def read_outcomes(path: str | Path, text: str | None = None, label: str | None = None) -> Outcomes:
    """Read an outcome table from a .jsonl, .csv, .tsv or .parquet file.

    Args:
        path: the file.
        text: the column or key of the prompts, if it is not `prompt`.
        label: the column or key of the right answers, if it is not `label`.

    Raises:
        RequestError: the file cannot be read, or rows are invalid; all are listed, as `file:line: problem`.
    """
    path = Path(path)
    named = {column: key for column, key in ((text, "prompt"), (label, "label")) if column is not None}
    return parse_outcomes(path, read_file(path, "an outcome table ('cascade outcomes')"), named)


def parse_outcomes(path: Path, data: bytes, named: Mapping[str, str] | None = None) -> Outcomes:
    """Return the table in `data`, the bytes of the file `path`; `named` maps its columns to other keys.

    Raises:
        RequestError: rows are invalid; all are listed. Or no row has a column of `named`.
    """
    rows = parse_file(path, data)
    if named:
        rows = _renamed(list(rows), named, path)
    return _table(rows, str(path), hashlib.sha256(data).hexdigest())


def _renamed(
    rows: Sequence[tuple[int, Any]], named: Mapping[str, str], path: Path
) -> Iterator[tuple[int, Any]]:
    own = [cells for _, cells in rows if isinstance(cells, dict)]
    for column in named:
        if own and not any(column in cells for cells in own):
            known = ", ".join(dict.fromkeys(key for cells in own for key in cells))
            raise RequestError(f"{path}: no row has a {column!r}; known: {known}")
    return (
        (line, {named.get(key, key): value for key, value in _without(cells, named).items()})
        if isinstance(cells, dict)
        else (line, cells)
        for line, cells in rows
    )


def _without(cells: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    """Return the cells without those whose key another column takes."""
    return {key: value for key, value in cells.items() if key in named or key not in named.values()}


def from_rows(rows: Iterable[Mapping[str, Any]], name: str = "rows") -> Outcomes:
    """Return the table of `rows`, which are like the objects of a JSONL file.

    Args:
        rows: the rows.
        name: stands for the file in messages.

    Raises:
        RequestError: rows are invalid; all are listed.
    """
    return _table(enumerate(rows, start=1), name, "")


def write_outcomes(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write `rows` to a .jsonl, .csv or .parquet file. Readers see the complete old file or the new one.

    Raises:
        RequestError: rows are invalid, or the file cannot be written.
    """
    path = Path(path)
    from_rows(rows, str(path))
    try:
        replace_file(path, format_rows(path, rows))
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror}") from error


@dataclass
class _Sparse:
    """A column of numbers that some rows lack."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, row: int, value: float | None) -> None:
        if value is not None:
            self.rows.append(row)
            self.values.append(value)

    def column(self, rows: int) -> Column:
        column = np.full(rows, math.nan)
        column[np.frombuffer(self.rows, np.int64)] = np.frombuffer(self.values, np.float64)
        return column


@dataclass
class _Model:
    """One model's columns while they are read."""

    quality: _Sparse = field(default_factory=_Sparse)
    cost_usd: _Sparse = field(default_factory=_Sparse)
    seconds: _Sparse = field(default_factory=_Sparse)
    confidence: _Sparse = field(default_factory=_Sparse)
    signals: dict[str, _Sparse] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)  # rows whose answer was cut off

    def add(self, row: int, entry: Mapping[str, Any]) -> None:
        self.quality.add(row, entry.get("correct", entry.get("quality")))
        self.cost_usd.add(row, entry["cost_usd"])
        self.seconds.add(row, entry.get("seconds"))
        self.confidence.add(row, entry.get("confidence"))
        for name, value in entry.get("signals", {}).items():
            self.signals.setdefault(name, _Sparse()).add(row, value)
        if "text" in entry:
            self.texts[row] = entry["text"]
        if entry.get("truncated"):
            self.truncated.append(row)

    def columns(self, rows: int) -> ModelOutcomes:
        return ModelOutcomes(
            self.quality.column(rows),
            self.cost_usd.column(rows),
            self.seconds.column(rows),
            self.confidence.column(rows),
            {name: signal.column(rows) for name, signal in self.signals.items()},
            [self.texts.get(row) for row in range(rows)] if self.texts else (),
            np.isin(np.arange(rows), self.truncated) if self.truncated else None,
        )


def _table(rows: Iterable[tuple[int, Any]], name: str, sha256: str) -> Outcomes:
    problems: list[str] = []
    lines: dict[str, int] = {}
    prompts: list[str | None] = []
    models: dict[str, _Model] = {}
    fields: dict[str, dict[int, str]] = {}
    for line, row in rows:
        own_problems = list(_problems(row))
        if not own_problems and str(row["id"]) in lines:
            own_problems = [
                f"id {row['id']!r} is used twice, first in line {lines[str(row['id'])]}; ids must differ"
            ]
        if own_problems or problems:  # after the first problem, only look for more
            problems += [f"{name}:{line}: {problem}" for problem in own_problems]
            continue
        number = len(lines)
        lines[str(row["id"])] = line
        prompts.append(row.get("prompt"))
        for model, entry in (*row["models"].items(), *row.get("failed", {}).items()):
            models.setdefault(model, _Model()).add(number, entry)
        for key in row.keys() - {"id", "prompt", "models", "failed"}:
            fields.setdefault(key, {})[number] = str(row[key])
    refuse(problems)
    if not lines:
        raise RequestError(f'{name}: no rows; expected lines like {{"id": "1", "models": {{…}}}}')
    count = len(lines)
    return Outcomes(
        list(lines),
        prompts,
        {key: model.columns(count) for key, model in models.items()},
        {key: [values.get(row, "") for row in range(count)] for key, values in sorted(fields.items())},
        sha256,
    )


def _problems(row: Any) -> Iterator[str]:
    """Yield what is wrong with one row."""
    if isinstance(row, RequestError):
        yield str(row)
        return
    if not isinstance(row, dict):
        yield f"expected an object with 'id' and 'models', got {type(row).__name__}"
        return
    if not isinstance(row.get("id"), str | int) or isinstance(row["id"], bool) or row["id"] == "":
        yield f"id is {row.get('id')!r}; expected a text or a whole number"
    for key, value in row.items():
        if key in ("prompt", "label") and not isinstance(value, str):
            yield f"{key} is {value!r}; expected a text, or leave it out"
        elif key not in _KEYS:
            yield from _field_problem(key, value)
    yield from _models_problems(row)


def _models_problems(row: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(row.get("models"), dict):
        yield f'models is {row.get("models")!r}; expected {{NAME: {{"correct": 0 or 1, "cost_usd": …}}}}'
    elif not isinstance(row.get("failed", {}), dict):
        yield f'failed is {row["failed"]!r}; expected {{NAME: {{"cost_usd": …}}}}'
    else:
        for name, entry in row["models"].items():
            yield from _entry_problems(f"models.{name}", entry, _ENTRY)
        for name, entry in row.get("failed", {}).items():
            yield from _entry_problems(f"failed.{name}", entry, _FAILED)
            if name in row["models"]:
                yield f"{name!r} is in models and in failed; a model either answered or failed"


def _field_problem(key: str, value: Any) -> Iterator[str]:
    near = _misspelt(key)
    if near:
        yield f"unknown key {key!r}; did you mean {near!r}?"
    elif not isinstance(value, str | int | float):  # a bool is an int
        yield f"{key} is {value!r:.60}; a field to slice by is a text, a number or a boolean"


def is_field(key: str, value: object) -> bool:
    """Return whether `value` may stand in a row under `key`, to slice by."""
    return key not in _KEYS and not any(_field_problem(key, value))


@lru_cache(maxsize=256)
def _misspelt(key: str) -> str | None:
    near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.8)
    return near[0] if near else None


def _entry_problems(where: str, entry: Any, known: Sequence[str]) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"{where} is {entry!r:.60}; expected an object; leave out a model that was not asked"
        return
    for key in entry.keys() - set(known):
        near = difflib.get_close_matches(key, known, n=1)
        yield f"{where}: unknown key {key!r}; " + (
            f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        )
    if known is _ENTRY and ("correct" in entry) == ("quality" in entry):
        which = "both" if "correct" in entry else "neither"
        yield f"{where} has {which} of 'correct' and 'quality'; give one of them"
    if "cost_usd" not in entry:
        yield f"{where} has no 'cost_usd'; give what the answer cost, 0 if it was free"
    for key, value in entry.items():
        if key in known:
            yield from _value_problem(f"{where}.{key}", key, value)


def _value_problem(where: str, key: str, value: Any) -> Iterator[str]:
    if key in ("text", "error"):
        if not isinstance(value, str):
            yield f"{where} is {value!r:.60}; expected a text"
    elif key == "truncated":
        if value not in (True, False):
            yield f"{where} is {value!r:.60}; expected true or false"
    elif key == "signals":
        yield from _signal_problems(where, value)
    else:
        yield from _number_problem(where, key, value)


def _signal_problems(where: str, signals: Any) -> Iterator[str]:
    if not isinstance(signals, dict):
        yield f"{where} is {signals!r:.60}; expected {{NAME: number}}"
        return
    for name, value in signals.items():
        if not _finite(value):
            yield f"{where}.{name} is {value!r:.60}; expected a finite number; leave out a missing signal"


def _number_problem(where: str, key: str, value: Any) -> Iterator[str]:
    if key == "correct":
        if value not in (0, 1) or not isinstance(value, int | float):
            yield f"{where} is {value!r:.60}; expected 0 or 1; for a grade between use 'quality'"
    elif not _finite(value) or isinstance(value, bool):
        yield f"{where} is {value!r:.60}; expected a finite number"
    elif value < 0 or (key in ("quality", "confidence") and value > 1):
        limit = "at least 0" if key in ("cost_usd", "seconds") else "0 to 1"
        yield f"{where} is {value!r}; expected {limit}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and -_MAX_NUMBER < value < _MAX_NUMBER
