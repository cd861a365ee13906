"""Grades: whether an answer was right, as a person or a job judged it later.

A run may be graded again: all grades are kept, and the newest counts. Each has an entry in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, ScalarSelect, insert, select

from cascade.errors import GradeError
from cascade.formats.plain import valid_unicode
from cascade.records import Record
from cascade.trace._ledger import PendingEntry, append_entries, hash_grade, lock_ledger
from cascade.trace._rows import without_nul
from cascade.trace._tables import grades, runs

MAX_BY, MAX_NOTE = 200, 10_000  # characters


class Grade(Record):
    """Whether the answer of `run`, or else its draft, was right.

    `by` names who judged it, `note` says why; `at` is the time, UTC in ISO 8601.
    """

    run: str
    correct: bool
    by: str | None = None
    note: str | None = None
    at: str = ""


def checked_grade(grade: Grade) -> Grade:
    """Return `grade` with the current time; a blank `by` or `note` becomes None.

    Raises:
        GradeError: `by` or `note` is too long.
    """
    values = {}
    for name, value, limit in (("by", grade.by, MAX_BY), ("note", grade.note, MAX_NOTE)):
        values[name] = (value or "").strip() or None
        if value is not None and len(value) > limit:
            raise GradeError(f"{name} has {len(value)} characters; a grade takes at most {limit}; shorten it")
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return grade.model_copy(update={**values, "at": at})


def add_grade(engine: Engine, grade: Grade, key: bytes | None = None) -> None:
    """Store `grade`; its run must exist.

    Raises:
        GradeError: the run has neither an answer nor a draft.
    """
    with engine.begin() as connection:
        lock_ledger(connection)
        row = connection.execute(select(runs.c.text, runs.c.draft).where(runs.c.run == grade.run)).one()
        if row.text is None and row.draft is None:
            raise GradeError(
                f"run {grade.run!r} has neither an answer nor a draft; there is nothing to grade"
            )
        insert_grades(connection, [grade], key)


def insert_grades(connection: Connection, given: Sequence[Grade], key: bytes | None) -> None:
    """Insert grades and their ledger entries; the transaction must hold the ledger's lock."""
    rows = [_row(grade) for grade in given]
    if connection.dialect.name == "postgresql":
        rows = [without_nul(row) for row in rows]
    numbers = append_entries(
        connection, [PendingEntry("grade", row["run"], hash_grade(row)) for row in rows], key
    )
    if rows:
        connection.execute(
            insert(grades), [row | {"seq": seq} for row, seq in zip(rows, numbers, strict=True)]
        )


def _row(grade: Grade) -> dict[str, Any]:
    """Return the row of `grade` as the database will hold it."""
    values = grade.model_dump().items()
    return {name: valid_unicode(value) if isinstance(value, str) else value for name, value in values}


def read_grades(connection: Connection, run: str) -> tuple[Grade, ...]:
    """Return the grades of `run`, newest last."""
    columns = [grades.c[name] for name in Grade.model_fields]
    query = select(*columns).where(grades.c.run == run).order_by(grades.c.seq)
    return tuple(Grade(**row) for row in connection.execute(query).mappings())


def newest_grade() -> ScalarSelect[bool]:
    """Return a subquery of `runs`: whether the newest grade of a run is "right"; NULL if it has none."""
    query = select(grades.c.correct).where(grades.c.run == runs.c.run)
    return query.order_by(grades.c.seq.desc()).limit(1).scalar_subquery()
