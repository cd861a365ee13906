"""Which runs are wanted, and what a query of the table has to ask for to get them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sqlalchemy import ColumnElement, or_, select

from cascade.records import Record
from cascade.trace.grades import newest_grade
from cascade.trace.tables import grades, runs


class RunFilter(Record):
    """Which runs are wanted; None does not filter.

    `graph` is a name, of any version, or `name@digest`. Confidence and cost (USD) are at least or at most
    what is given. `since` is inclusive, `until` is not; both are UTC in ISO 8601, as stored. `contains` is
    looked for in the request, the answer and the draft, without regard to case of ASCII letters, and at the
    beginning of the run's name. `grade` is the newest one.
    """

    graph: str | None = None
    status: str | None = None
    tier: str | None = None
    rule: str | None = None
    confidence_min: float | None = None
    confidence_max: float | None = None
    cost_min: float | None = None
    cost_max: float | None = None
    since: str | None = None
    until: str | None = None
    contains: str | None = None
    grade: Literal["right", "wrong", "none"] | None = None


def conditions(where: RunFilter) -> Iterator[ColumnElement[bool]]:
    """Yield what a query of `runs` has to ask for to get those in `where`."""
    for tests in by_column(where).values():
        yield from tests
    if where.contains is not None:
        yield or_(in_texts(where.contains), is_named(where.contains))
    if where.grade == "none":
        yield newest_grade().is_(None)
    elif where.grade is not None:
        yield runs.c.run.in_(select(grades.c.run))  # few are: this way they are found by it
        yield newest_grade().is_(where.grade == "right")


def by_column(where: RunFilter) -> dict[str, list[ColumnElement[bool]]]:
    """Return what `where` asks of each column that has an index of its own, where it asks anything."""
    name, at, digest = (where.graph or "").partition("@")
    tests: dict[str, list[ColumnElement[bool] | None]] = {
        "digest": [runs.c.digest == digest if at else None],
        "graph": [None if where.graph is None else runs.c.graph == name],
        "status": [None if where.status is None else runs.c.status == where.status],
        "rule": [None if where.rule is None else runs.c.rule == where.rule],
        "tier": [None if where.tier is None else runs.c.tier == where.tier],
        "confidence": [
            None if where.confidence_min is None else runs.c.confidence >= where.confidence_min,
            None if where.confidence_max is None else runs.c.confidence <= where.confidence_max,
        ],
        "cost_usd": [
            None if where.cost_min is None else runs.c.cost_usd >= where.cost_min,
            None if where.cost_max is None else runs.c.cost_usd <= where.cost_max,
        ],
        "started": [
            None if where.since is None else runs.c.started >= where.since,
            None if where.until is None else runs.c.started < where.until,
        ],
    }
    given = {column: [test for test in found if test is not None] for column, found in tests.items()}
    return {column: found for column, found in given.items() if found}


def in_texts(piece: str) -> ColumnElement[bool]:
    """Ask for `piece` in the texts of a run."""
    texts = (runs.c.request_text, runs.c.text, runs.c.draft)
    return or_(*(column.icontains(piece, autoescape=True) for column in texts))


def is_named(piece: str) -> ColumnElement[bool]:
    """Ask for runs whose name begins with `piece`."""
    return runs.c.run.startswith(piece.upper(), autoescape=True)
