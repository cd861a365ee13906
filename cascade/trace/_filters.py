"""Which runs are wanted, as a record and as conditions of a query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sqlalchemy import ColumnElement, or_, select

from cascade.records import Record
from cascade.trace._grades import newest_grade
from cascade.trace._tables import grades, runs


class RunFilter(Record):
    """Which runs are wanted; fields that are None do not filter.

    Attributes:
        graph: a name, for all versions of the graph, or `name@digest`.
        status: the run's status.
        tier: the tier that answered.
        rule: the rule of the last decision.
        confidence_min, confidence_max: inclusive bounds.
        cost_min, cost_max: inclusive bounds, in USD.
        since, until: bounds of the start time, UTC in ISO 8601; `since` is inclusive, `until` exclusive.
        contains: a piece of the request, the answer or the draft, ignoring the case of ASCII letters; or the
            beginning of the run's name.
        grade: the newest grade.
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
    """Yield the conditions of a query of `runs` that match `where`."""
    for tests in conditions_by_column(where).values():
        yield from tests
    if where.contains is not None:
        yield or_(text_contains(where.contains), name_starts_with(where.contains))
    if where.grade == "none":
        yield newest_grade().is_(None)
    elif where.grade is not None:
        yield runs.c.run.in_(select(grades.c.run))  # few are graded: SQLite looks these up
        yield newest_grade().is_(where.grade == "right")


def conditions_by_column(where: RunFilter) -> dict[str, list[ColumnElement[bool]]]:
    """Return the conditions of `where` for each column that it filters; each column has an index."""
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
    given = {column: [test for test in group if test is not None] for column, group in tests.items()}
    return {column: group for column, group in given.items() if group}


def text_contains(piece: str) -> ColumnElement[bool]:
    """Return the condition that one of a run's texts contains `piece`."""
    texts = (runs.c.request_text, runs.c.text, runs.c.draft)
    return or_(*(column.icontains(piece, autoescape=True) for column in texts))


def name_starts_with(piece: str) -> ColumnElement[bool]:
    """Return the condition that a run's name begins with `piece`."""
    return runs.c.run.startswith(piece.upper(), autoescape=True)
