"""Grades: whether an answer was right, as a person or a job says afterwards.

A run may be graded again: the newest grade counts, and all are kept. The table is made with the first
grade, so a database without one, or a reader that does not know it, works as before.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    ScalarSelect,
    Table,
    insert,
    inspect,
    select,
)

from cascade.errors import GradeError
from cascade.records import Record
from cascade.trace.tables import UnicodeText, metadata, runs

MAX_BY, MAX_NOTE = 200, 10_000  # characters

grades = Table(
    "grades",
    metadata,
    Column("seq", Integer, primary_key=True),  # the order of grading
    Column("run", UnicodeText, ForeignKey("runs.run", ondelete="CASCADE"), nullable=False, index=True),
    Column("correct", Boolean, nullable=False),
    Column("by", UnicodeText),
    Column("note", UnicodeText),
    Column("at", UnicodeText, nullable=False),
    sqlite_autoincrement=True,
)


class Grade(Record):
    """Whether the answer of `run` was right; `by` whom, `at` UTC in ISO 8601.

    For a run without an answer, whether its draft was.
    """

    run: str
    correct: bool
    by: str | None = None
    note: str | None = None
    at: str = ""


def checked_grade(grade: Grade) -> Grade:
    """Return `grade` with the present time; a blank `by` or `note` becomes None.

    Raises:
        GradeError: `by` or `note` is too long.
    """
    values = {}
    for name, value, most in (("by", grade.by, MAX_BY), ("note", grade.note, MAX_NOTE)):
        values[name] = (value or "").strip() or None
        if value is not None and len(value) > most:
            raise GradeError(f"{name} has {len(value)} characters; a grade takes at most {most}; shorten it")
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return grade.model_copy(update={**values, "at": at})


def add_grade(engine: Engine, grade: Grade) -> None:
    """Store `grade`, of a run that exists.

    Raises:
        GradeError: the run has neither an answer nor a draft.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # two processes must not make the table at once
        row = connection.execute(select(runs.c.text, runs.c.draft).where(runs.c.run == grade.run)).one()
        if row.text is None and row.draft is None:
            raise GradeError(
                f"run {grade.run!r} has neither an answer nor a draft; there is nothing to grade"
            )
        grades.create(connection, checkfirst=True)
        connection.execute(insert(grades).values(grade.model_dump()))


def read_grades(connection: Connection, run: str) -> tuple[Grade, ...]:
    """Return the grades of `run`, the newest last."""
    if not has_grades(connection):
        return ()
    columns = [grades.c[name] for name in Grade.model_fields]
    query = select(*columns).where(grades.c.run == run).order_by(grades.c.seq)
    return tuple(Grade(**row) for row in connection.execute(query).mappings())


def has_grades(connection: Connection) -> bool:
    """Return whether anything was ever graded here."""
    return inspect(connection).has_table(grades.name)


def newest_grade() -> ScalarSelect[bool]:
    """Return, as part of a query of `runs`, whether the newest grade of each says right."""
    query = select(grades.c.correct).where(grades.c.run == runs.c.run)
    return query.order_by(grades.c.seq.desc()).limit(1).scalar_subquery()
