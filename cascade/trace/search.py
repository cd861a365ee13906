"""Finding the newest runs that a filter wants, fast among a million of them.

SQLite knows little about how many rows a condition leaves, and takes one index a query. So: texts are
looked up in the full-text index; a column that leaves few runs is looked up in its own index; else the runs
are gone through in the order of commit in one narrow index that has all columns of filters. PostgreSQL
plans by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, text

from cascade.trace.filters import RunFilter, by_column, conditions, in_texts
from cascade.trace.fulltext import LEAST, candidates, has_index
from cascade.trace.tables import runs

_FEW = 2000  # runs that are looked up in the table and sorted
_MANY = 200_000  # runs that are sorted where the index of a column is all that is needed
_IN_ORDER = ("graph", "status", "rule", "tier")
_NEWEST = 20_000  # runs that are looked through for a piece of one or two letters


def newest(connection: Connection, where: RunFilter, *, limit: int, below: int | None = None) -> list[int]:
    """Return the numbers of the newest runs in `where`, the newest first.

    Args:
        connection: to the trace database.
        where: which runs. A text of one or two letters is looked for in the newest 20,000 runs only.
        limit: at most so many.
        below: only numbers below this one.
    """
    found: list[ColumnElement[bool]] = [] if below is None else [runs.c.seq < below]
    if connection.dialect.name != "sqlite" or not has_index(connection):
        return _numbers(connection, [*found, *conditions(where)], limit)
    if where.contains is None:
        wanted = [*found, *conditions(where)]
        return _numbers(connection, wanted, limit, _index(connection, where))
    rest = list(conditions(where.model_copy(update={"contains": None})))
    if len(where.contains) < LEAST:
        last = connection.execute(select(func.max(runs.c.seq).filter(*found))).scalar() or 0
        return _numbers(connection, [*found, *conditions(where), runs.c.seq > last - _NEWEST], limit)
    return _with_text(connection, where.contains, rest, limit, below)


def _numbers(
    connection: Connection, wanted: Sequence[ColumnElement[bool]], limit: int, index: str | None = None
) -> list[int]:
    query: Select[Any] = select(runs.c.seq).where(*wanted).order_by(runs.c.seq.desc()).limit(limit)
    if index is not None:
        query = query.with_hint(runs, f"INDEXED BY {index}", "sqlite")
    return list(connection.execute(query).scalars())


def _index(connection: Connection, where: RunFilter) -> str | None:
    """Return the index to look in; None leaves it to SQLite."""
    given = by_column(where)
    if where.grade is not None or not given:
        return None
    if "digest" in given and len(given) == 2:
        return "ix_runs_digest"  # the graph follows from it
    if len(given) == 1 and next(iter(given)) in _IN_ORDER:
        return None  # the index of one value has its runs in the order of commit
    most = _MANY if len(given) == 1 else _FEW
    for name, tests in given.items():
        few = select(runs.c.seq).where(*tests).limit(most + 1).subquery()
        if (connection.execute(select(func.count()).select_from(few)).scalar() or 0) <= most:
            return f"ix_runs_{name}"
    return "ix_runs_filter"


def _with_text(
    connection: Connection, piece: str, rest: Sequence[ColumnElement[bool]], limit: int, below: int | None
) -> list[int]:
    """Return the newest runs that `piece` is in, or whose name begins with it, and that pass the `rest`."""
    prefix = piece.upper()
    named = [*rest, runs.c.run.between(prefix, prefix + "\U0010ffff")]
    found = _numbers(connection, named if below is None else [*named, runs.c.seq < below], limit)
    texts: list[int] = []
    for chunk in candidates(connection, piece, below):
        # One parameter, not thousands; and the narrow index tells first which rows are worth reading.
        here = runs.c.seq.in_(text("SELECT value FROM json_each(:chunk)").bindparams(chunk=json.dumps(chunk)))
        texts += _numbers(connection, [here, *rest, in_texts(piece)], limit - len(texts), "ix_runs_filter")
        if len(texts) >= limit:
            break
    return sorted({*found, *texts}, reverse=True)[:limit]
