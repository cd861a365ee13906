"""The rows of a call: those that may train, those that a promise is checked on, and which stand for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.errors import RequestError
from cascade.lab.learning.session import Session
from cascade.lab.learning.settings import LearnSettings
from cascade.lab.reading.from_traces import TraceOptions, survey_traces
from cascade.lab.reading.row_reading import RowOptions
from cascade.lab.reading.survey import Survey, survey
from cascade.lab.tables.cells import decode_text, read_file
from cascade.lab.tables.rows import read_rows

Indices = NDArray[np.intp]
KINDS = "a .txt file of one text a line, or a .csv, .tsv, .jsonl or .parquet file"
_FIRST = 5  # rows of each label that come before everything else


@dataclass(frozen=True)
class Data:
    """Labelled rows; the sizes read texts, labels and groups (`sizes.Rows`).

    Attributes:
        texts: the texts.
        labels: each text's label.
        groups: each text's group, which stays on one side of a split.
        slices: each text's value of the slice column; None without one.
        times: when each text came; None where that is not known.
        asked: whether each text was picked for a person to label.
    """

    texts: list[str]
    labels: list[str]
    groups: Indices
    slices: list[str] | None
    times: list[str] | None
    asked: list[bool]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Indices) -> Data:
        """Return some of the rows, in the order given."""
        chosen = rows.tolist()
        return Data(
            [self.texts[index] for index in chosen],
            [self.labels[index] for index in chosen],
            self.groups[rows],
            None if self.slices is None else [self.slices[index] for index in chosen],
            None if self.times is None else [self.times[index] for index in chosen],
            [self.asked[index] for index in chosen],
        )


def read_source(source: Path, settings: LearnSettings, session: Session) -> tuple[Survey, Data]:
    """Read and look through the rows to learn from, and say what they are; the first ones stand for all.

    Raises:
        RequestError: nothing can be learned from them; the message says what to do.
    """
    found = surveyed(source, settings.text, settings.label, settings.rows, settings.traces)
    for line in found.lines():
        session.note(line)
    data = _data(found)
    return found, data.take(interleaved(data.labels, settings.seed))


def surveyed(
    source: Path, text: str | None, label: str | None, rows: RowOptions, traces: TraceOptions | None
) -> Survey:
    """Look through the rows of a file, or those that the stored runs of a graph tell.

    Raises:
        RequestError: nothing can be learned from them; the message says what to do.
    """
    if traces is None:
        return survey(source, text, label, rows)
    return survey_traces(source, rows, traces)


def read_test(path: Path, settings: LearnSettings, train: Survey, session: Session) -> tuple[Survey, Data]:
    """Read the rows that the promise is checked on, without those whose text is among the training rows.

    Raises:
        RequestError: they cannot be read, none are left, or none has a label that was learned.
    """
    columns = train.columns
    options = settings.rows._replace(min_rows=1, drop_rare=False)
    found = survey(path, settings.text or columns.text, settings.label or columns.label, options)
    data, known = _data(found), {_form(row.text) for row in train.rows}
    left = [index for index, text in enumerate(data.texts) if _form(text) not in known]
    if len(left) < len(data):
        session.note(f"{path}: {len(data) - len(left):,} rows are among the training rows, and do not count")
    if not left:
        raise RequestError(f"{path}: every row is among the training rows; give rows that nothing has seen")
    labels = set(train.counts)
    foreign = Counter(data.labels[index] for index in left if data.labels[index] not in labels)
    if foreign.total() == len(left):
        names = ", ".join(repr(label) for label, _ in foreign.most_common(3))
        raise RequestError(f"{path}: no row has a label that was learned; its labels are {names}, …")
    if foreign:
        names = ", ".join(repr(label) for label, _ in foreign.most_common(3))
        session.note(f"warning: {path}: {foreign.total():,} rows have labels that were not learned: {names}")
    return found, data.take(np.array(left, dtype=np.intp))


def read_texts(path: Path, column: str) -> list[str]:
    """Return the texts of a file without labels: a line each of .txt, else the rows' column.

    Args:
        path: the file.
        column: the column of the labelled texts; where there is none of that name, `text`.

    Raises:
        RequestError: the file cannot be read.
    """
    if path.suffix.lower() == ".txt":
        text = decode_text(str(path), read_file(path, KINDS))
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return [row.text for row in read_rows(path, column)]
    except RequestError:
        return [row.text for row in read_rows(path)]


def interleaved(labels: Sequence[str], seed: int) -> Indices:
    """Return an order of rows in which each part has its share of every label.

    Five rows of each label come first. The seed draws which rows of a label come when.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    totals, seen = Counter(labels), Counter[str]()
    place = np.empty(len(labels))
    for index in order.tolist():
        label = labels[index]
        rank = seen[label]
        seen[label] += 1
        place[index] = rank - _FIRST if rank < _FIRST else (rank + 0.5) / totals[label]
    return order[np.argsort(place[order], kind="stable")].astype(np.intp)


def _data(found: Survey) -> Data:
    return Data(
        [row.text for row in found.rows],
        [row.label for row in found.rows],
        np.array(found.groups, dtype=np.intp),
        found.slices,
        found.times,
        found.asked,
    )


def _form(text: str) -> str:
    return " ".join(text.casefold().split())
