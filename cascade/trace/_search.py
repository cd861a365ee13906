"""Finds the newest runs that match a filter, quickly among a million.

SQLite uses one index per query and does not know which of several conditions is the rare one. So the index
is chosen here. One condition of equality is answered by its own index, which lists runs in commit order.
Any other filter is first checked against the newest runs, which settles it if matches are common. If not,
the conditions that few runs meet are looked up and intersected; if none is rare, the covering index
`ix_runs_filter` is scanned from the newest run down. Texts go through the full-text index. PostgreSQL plans
by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, Select, func, select

from cascade.trace._filters import RunFilter, conditions, conditions_by_column, text_contains
from cascade.trace._fulltext import MIN_LETTERS, candidates, has_index
from cascade.trace._tables import grades, runs

_EQUALITY = {"graph", "digest", "status", "rule", "tier"}  # columns that a filter compares with one value
_WINDOW = 20_000  # newest runs that are tried first
_TEXT_WINDOW = 20_000  # newest runs that are searched for a text of one or two letters
_MAX_RARE = 15_000  # runs a condition may leave to be looked up one by one
_MAX_TIMES = 250_000  # index entries read to find the last run before a time
_MAX_BATCH = 20_000  # runs looked up in one query
_FILTER_INDEX = "INDEXED BY ix_runs_filter"


def newest_runs(
    connection: Connection, where: RunFilter, *, limit: int, below: int | None = None
) -> list[int]:
    """Return the numbers of the newest runs that match `where`, newest first.

    Args:
        connection: to the trace database.
        where: which runs. A text of one or two letters is searched for in the newest 20,000 runs only.
        limit: the maximum number of runs.
        below: only numbers below this one.
    """
    wanted = list(conditions(where))
    if connection.dialect.name != "sqlite":
        return _select(connection, wanted, limit, below)
    if where.contains is None or "\0" in where.contains or not has_index(connection):  # FTS5 takes no NUL
        return _by_columns(connection, where, wanted, limit, below)
    if len(where.contains) >= MIN_LETTERS:
        return _with_text(connection, where, limit, below)
    recent = runs.c.seq > _last(connection, below) - _TEXT_WINDOW
    return _select(connection, [*wanted, recent], limit, below, "NOT INDEXED")


def has_number(connection: Connection, numbers: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition that a run has one of these numbers."""
    if connection.dialect.name != "sqlite":
        return runs.c.seq.in_(numbers)
    given = func.json_each(json.dumps(numbers)).table_valued("value")  # one parameter, not thousands
    return runs.c.seq.in_(select(given.c.value))


def _select(
    connection: Connection,
    wanted: Sequence[ColumnElement[bool]],
    limit: int,
    below: int | None = None,
    index: str = "",
) -> list[int]:
    """Return the newest runs that meet `wanted`; `index` is SQLite's INDEXED BY clause."""
    query = select(runs.c.seq).where(*wanted).order_by(runs.c.seq.desc()).limit(limit)
    if below is not None:
        query = query.where(runs.c.seq < below)
    if index:
        query = query.with_hint(runs, index, "sqlite")
    return list(connection.execute(query).scalars())


def _by_columns(
    connection: Connection,
    where: RunFilter,
    wanted: Sequence[ColumnElement[bool]],
    limit: int,
    below: int | None,
) -> list[int]:
    """Return the newest runs that meet `wanted`, which is what `where` asks for and perhaps more."""
    columns = conditions_by_column(where)
    graded = where.grade in ("right", "wrong")
    if not columns and not graded:
        return _select(connection, wanted, limit, below)
    if not graded and (
        columns.keys() <= {"graph", "digest"} or (len(columns) == 1 and columns.keys() <= _EQUALITY)
    ):
        return _select(connection, wanted, limit, below, f"INDEXED BY ix_runs_{min(columns)}")
    start = _last(connection, below) - _WINDOW + 1
    result = _select(connection, [*wanted, runs.c.seq >= start], limit, below, _FILTER_INDEX)
    if len(result) == limit or start <= 0:
        return result
    rare = _rare(connection, where, start)
    if rare is not None:
        return result + _look_up(connection, [rare], wanted, limit - len(result))
    end = min(start, _end_of_time(connection, where))
    return result + _select(connection, wanted, limit - len(result), end, _FILTER_INDEX)


def _last(connection: Connection, below: int | None) -> int:
    """Return the number of the newest run (below `below`); 0 if there is none."""
    return next(iter(_select(connection, [], 1, below)), 0)


def _rare(connection: Connection, where: RunFilter, below: int) -> list[int] | None:
    """Return the runs below `below` that meet every rare condition, newest first; None if none is rare."""
    queries = [
        select(runs.c.seq).where(*tests).with_hint(runs, f"INDEXED BY ix_runs_{column}", "sqlite")
        for column, tests in conditions_by_column(where).items()
    ]
    if where.grade in ("right", "wrong"):
        queries.append(select(runs.c.seq).where(runs.c.run.in_(select(grades.c.run))))
    sets = [numbers for query in queries if (numbers := _few(connection, query)) is not None]
    if not sets:
        return None
    return sorted((seq for seq in set.intersection(*sets) if seq < below), reverse=True)


def _few(connection: Connection, query: Select[int]) -> set[int] | None:
    """Return the numbers that `query` gives, or None if they are too many to look up."""
    numbers = connection.execute(query.limit(_MAX_RARE + 1)).scalars().all()
    return None if len(numbers) > _MAX_RARE else set(numbers)


def _end_of_time(connection: Connection, where: RunFilter) -> int:
    """Return a number below which all runs are that started within the times of `where`."""
    end = 2**63 - 1
    if where.until is None:
        return end
    started = select(runs.c.seq).where(*conditions_by_column(where)["started"])
    inner = started.with_hint(runs, "INDEXED BY ix_runs_started", "sqlite").limit(_MAX_TIMES + 1).subquery()
    count, last = connection.execute(select(func.count(), func.max(inner.c.seq)).select_from(inner)).one()
    return end if count > _MAX_TIMES else (last or 0) + 1


def _look_up(
    connection: Connection,
    batches: Iterable[Sequence[int]],
    wanted: Sequence[ColumnElement[bool]],
    limit: int,
) -> list[int]:
    """Return the first `limit` of the numbers in `batches` whose runs meet `wanted`."""
    result: list[int] = []
    size = 2 * limit  # either most of them match, or hardly any
    for batch in batches:
        start = 0
        while start < len(batch) and len(result) < limit:
            here = [has_number(connection, batch[start : start + size]), *wanted]
            result += _select(connection, here, limit - len(result), index="NOT INDEXED")
            start, size = start + size, min(4 * size, _MAX_BATCH)
        if len(result) >= limit:
            break
    return result


def _with_text(connection: Connection, where: RunFilter, limit: int, below: int | None) -> list[int]:
    """Return the newest runs that have a text in them, or a name that begins with it."""
    piece = where.contains or ""
    others = where.model_copy(update={"contains": None})
    end = 2**63 - 1 if below is None else below
    rare = _rare(connection, others, end)
    if rare is not None:
        return _look_up(connection, [rare], list(conditions(where)), limit)
    rest = list(conditions(others))
    named = _named(connection, others, rest, piece.upper(), limit, below)
    matches = _look_up(connection, candidates(connection, piece, end), [*rest, text_contains(piece)], limit)
    return sorted({*named, *matches}, reverse=True)[:limit]


def _named(
    connection: Connection,
    where: RunFilter,
    rest: Sequence[ColumnElement[bool]],
    prefix: str,
    limit: int,
    below: int | None,
) -> list[int]:
    """Return the newest runs whose name begins with `prefix` and that match `where`, which is the `rest`."""
    end = prefix + "\U0010ffff"
    numbers = _few(connection, select(runs.c.seq).where(runs.c.run.between(prefix, end)))
    if numbers is not None:
        earlier = sorted((seq for seq in numbers if below is None or seq < below), reverse=True)
        return _look_up(connection, [earlier], rest, limit)
    # Names follow time, so many with one prefix narrow down little; an expression uses no index.
    return _by_columns(connection, where, [*rest, runs.c.run.concat("").between(prefix, end)], limit, below)
