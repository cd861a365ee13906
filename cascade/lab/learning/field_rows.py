"""A user's rows for a flat schema: the text, and the right value of each field, checked row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascade.errors import ConfigError, RequestError
from cascade.formats.flat_schema import Field, FieldKind, assembled, flat_fields
from cascade.formats.schemas import MAX_BYTES, parse_json, value_problem
from cascade.lab.fitting.fit_fields import FieldRows
from cascade.lab.reading.files import read_row_file
from cascade.lab.reading.near_duplicates import near_duplicate_groups, normal_form
from cascade.lab.tables.cells import read_file, refuse

TEXT_NAMES = ("text", "prompt", "mail", "email", "body", "message", "content", "document", "input")
ANSWER_NAMES = ("answer", "json", "fields", "label", "output", "expected")
MIN_ROWS = 20
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class FieldData:
    """The rows of a file.

    Attributes:
        rows: texts, answers that satisfy the schema, groups of near-duplicates.
        sha256: of the file, in hexadecimal.
        lines: what was found, for people.
    """

    rows: FieldRows
    sha256: str
    lines: tuple[str, ...]


def read_schema(path: Path) -> dict[str, Any]:
    """Read a flat JSON Schema.

    Raises:
        RequestError: the file cannot be read, is no JSON, or its schema is not flat: with the path in it.
    """
    data = read_file(path, "a file with a JSON Schema for --schema")
    try:
        schema = parse_json(data[: MAX_BYTES + 1].decode("utf-8-sig"))
        flat_fields(schema)
    except (ValueError, ConfigError) as error:
        raise RequestError(f"{path}: {error}") from error
    found: dict[str, Any] = schema
    return found


def read_field_rows(
    path: Path, schema: dict[str, Any], text: str | None = None, answer: str | None = None
) -> FieldData:
    """Read rows with a text, and the fields in columns of their names or as a JSON object in one column.

    Args:
        path: CSV, TSV, JSONL or Parquet.
        schema: a flat schema.
        text: the column of the texts; None: the first of `TEXT_NAMES` that is no field.
        answer: the column of the JSON object; None: the first of `ANSWER_NAMES` that is no field, if the
            fields have no columns.

    Raises:
        RequestError: the file cannot be read, a column is missing, or rows are broken: all are listed.
    """
    read = read_row_file(path)
    cells = list(read.table.rows)
    names = list(dict.fromkeys(name for _, row in cells for name in row))
    fields = flat_fields(schema)
    text, answer = _columns(str(path), names, fields, text, answer)
    problems, texts, answers = [], [], []
    for line, row in cells:
        content = row.get(text)
        values = _values(fields, row, answer)
        if not isinstance(content, str) or not content.strip():
            problems.append(f"line {line}: column {text!r} has no text")
        elif isinstance(values, str):
            problems.append(f"line {line}: {values}")
        elif problem := value_problem(schema, values):
            problems.append(f"line {line}: {problem}")
        else:
            texts.append(content)
            answers.append(values)
    if problems:
        refuse([f"{path}: {problem}" for problem in problems])
    if len(texts) < MIN_ROWS:
        raise RequestError(
            f"{path}: {len(texts)} rows; at least {MIN_ROWS} are needed, some hundreds are good"
        )
    groups = near_duplicate_groups([normal_form(each) for each in texts])
    lines = (
        f"{path}: {len(texts):,} rows ({read.form}), {len(fields)} fields, text in {text!r}",
        *read.remarks,
    )
    return FieldData(FieldRows(texts, answers, np.array(groups, np.intp)), read.sha256, lines)


def _columns(
    path: str, names: Sequence[str], fields: Sequence[Field], text: str | None, answer: str | None
) -> tuple[str, str | None]:
    own = {field.name for field in fields}
    for told in (text, answer):
        if told is not None and told not in names:
            raise RequestError(f"{path}: there is no column {told!r}; there are: {', '.join(names)[:300]}")
    if text is None:
        text = next((name for name in TEXT_NAMES if name in names and name not in own), None)
    if text is None:
        raise RequestError(f"{path}: which column is the text? --text COL names it: {', '.join(names)[:300]}")
    missing = [field.name for field in fields if field.required and field.name not in names]
    if answer is None and missing:
        answer = next((name for name in ANSWER_NAMES if name in names and name not in own), None)
        if answer is None:
            raise RequestError(
                f"{path}: there is no column {missing[0]!r} and none with a JSON object; give each field "
                "a column of its name, or name the column of the object: --label COL"
            )
    return text, answer


def _values(fields: Sequence[Field], row: Mapping[str, Any], answer: str | None) -> dict[str, Any] | str:
    """Return the values of a row, or why they cannot be read."""
    given: Any = row
    if answer is not None:
        given = row.get(answer)
        if isinstance(given, str):
            try:
                given = parse_json(given)
            except ValueError as error:
                return f"column {answer!r} is no JSON: {error}"
        if not isinstance(given, dict):
            return f"column {answer!r} is {json.dumps(given)[:40]}; expected a JSON object"
        unknown = sorted(set(given) - {field.name for field in fields})
        if unknown:
            return f"column {answer!r} has {unknown[0]!r}, which the schema does not; add it there or drop it"
    values = {}
    for field in fields:
        value = given.get(field.name)
        try:
            values[field.name] = _from_text(field, value) if isinstance(value, str) else value
        except ValueError as error:
            return str(error)
    return assembled(tuple(fields), values)


def _from_text(field: Field, cell: str) -> Any:
    """Return the value that a cell of text stands for; an empty one is no value.

    Raises:
        ValueError: it is none of the field.
    """
    word = cell.strip()
    if not word and field.optional:
        return None
    if field.kind is FieldKind.CLOSED:
        return _closed_value(field, word)
    if field.kind in (FieldKind.NUMBER, FieldKind.INTEGER):
        try:
            number = float(word)
        except ValueError:
            raise ValueError(f"field {field.name!r} is {word!r:.40}; expected a number like 1234.5") from None
        return int(number) if number.is_integer() else number
    return word


def _closed_value(field: Field, word: str) -> Any:
    for value in field.values:
        if word in (value, json.dumps(value)):
            return value
    if set(field.values) <= {True, False} and word.lower() in _TRUTH:
        return _TRUTH[word.lower()]
    known = ", ".join(json.dumps(value) for value in field.values)
    raise ValueError(f"field {field.name!r} is {word!r:.40}; expected one of: {known:.200}")
