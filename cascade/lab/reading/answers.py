"""What a person has answered about the labels of a file's texts, kept beside the file.

One line of JSON an answer, in `FILE.answers.jsonl`: the text, the label or null where the person skipped it,
and when. The file is replaced whole with each answer, so an interrupted session has lost nothing and goes on
where it was. Answers count more than the labels of the file: they join the next training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cascade.errors import RequestError
from cascade.files import replace_file, sole_writer
from cascade.lab.reading.label_checks import label_problem
from cascade.lab.reading.near_duplicates import normal_form
from cascade.lab.reading.row_reading import Place, ReadRows
from cascade.lab.reading.sources import PERSON
from cascade.lab.tables.cells import decode_text, jsonl_table, refuse
from cascade.lab.tables.rows import LabelledRow
from cascade.records import check_text


class PersonAnswer(NamedTuple):
    """What a person said of a text; `label` is None where they skipped it."""

    text: str
    label: str | None


def answers_path(source: Path) -> Path:
    """Return the file of answers beside the file `source`."""
    return source.with_name(f"{source.name}.answers.jsonl")


def read_answers(path: Path) -> dict[str, PersonAnswer]:
    """Return the newest answer to each text, by its `normal_form`; none if there is no file.

    Raises:
        RequestError: the file cannot be read, or lines are broken; all are listed.
    """
    answers: dict[str, PersonAnswer] = {}
    problems: list[str] = []
    for line, row in jsonl_table(decode_text(str(path), _content(path))).rows:
        try:
            answer = _answer(row)
        except RequestError as error:
            problems.append(f"{path}:{line}: {error}")
        else:
            answers[normal_form(answer.text)] = answer
    refuse(problems)
    return answers


def add_answer(path: Path, answer: PersonAnswer) -> None:
    """Append one answer; when this returns it is on the disk.

    Raises:
        RequestError: the file cannot be written; what was in it is as it was.
    """
    row = {"text": answer.text, "label": answer.label, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
    try:
        with sole_writer(path):
            before = _content(path)
            if before and not before.endswith(b"\n"):
                before += b"\n"
            replace_file(path, before + line)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}; the answer is not stored") from error


def join_answers(read: ReadRows, answers: Mapping[str, PersonAnswer]) -> ReadRows:
    """Return the rows with a person's labels in place of others, and the texts that only they labelled."""
    given = {form: answer for form, answer in answers.items() if answer.label is not None}
    if not given:
        return read
    rows, places, seen = list(read.rows), list(read.places), set[str]()
    for index, row in enumerate(rows):
        form = normal_form(row.text)
        if form in given:
            seen.add(form)
            rows[index] = row._replace(label=given[form].label or row.label)
            places[index] = places[index]._replace(source=PERSON)
    for number, (form, answer) in enumerate(given.items(), start=1):
        if form not in seen:
            rows.append(LabelledRow(f"answer {number}", answer.text, answer.label or ""))
            places.append(Place(0, source=PERSON, asked=True))
    left = [text for text in read.unlabelled if normal_form(text) not in given]
    count = f"{len(given):,} answers of a person count instead of other labels"
    remarks = (*read.remarks, f"{count}, {len(given) - len(seen):,} of them about other texts")
    return replace(read, rows=rows, places=places, unlabelled=left, remarks=remarks)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from error


def _answer(row: Any) -> PersonAnswer:
    if isinstance(row, RequestError):
        raise row
    if not isinstance(row, dict) or "text" not in row or "label" not in row:
        raise RequestError('expected {"text": …, "label": …}')
    label = row["label"]
    if label is not None and (problem := label_problem(label, "label")):
        raise RequestError(problem)
    return PersonAnswer(check_text(row["text"]), label)
