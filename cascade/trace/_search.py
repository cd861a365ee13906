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
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Select, func, select

from cascade.trace._filters import RunFilter, conditions, conditions_by_column, text_contains
from cascade.trace._fulltext import MIN_LETTERS, has_index, matches, runs_fts
from cascade.trace._tables import grades, runs

_EQUALITY = {"graph", "digest", "status", "rule", "tier"}  # columns that a filter compares with one value
_WINDOW = 20_000  # newest runs that are tried first
_TEXT_WINDOW = 20_000  # newest runs that are searched for a text of one or two letters
_MAX_RARE = 15_000  # runs a condition may leave to be looked up one by one
_MAX_NUMBER = 2**63 - 1
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
    columns = conditions_by_column(where).keys()
    if where.grade in ("right", "wrong"):  # few runs are graded
        rare = _rare(connection, where, _MAX_NUMBER if below is None else below)
        if rare is not None:
            return _look_up(connection, rare, wanted, limit)
    elif not columns:
        return _select(connection, wanted, limit, below)
    elif columns <= _EQUALITY and len(columns - {"digest"}) == 1:  # a digest comes with its graph
        return _select(connection, wanted, limit, below, f"INDEXED BY ix_runs_{min(columns)}")
    start = _last(connection, below) - _WINDOW + 1
    result = _select(connection, [*wanted, runs.c.seq >= start], limit, below, _FILTER_INDEX)
    if len(result) == limit or start <= 0:
        return result
    rare = _rare(connection, where, start)
    if rare is not None:
        return result + _look_up(connection, rare, wanted, limit - len(result))
    end = start if where.until is None else _end_of_time(connection, where, start)
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


def _end_of_time(connection: Connection, where: RunFilter, start: int) -> int:
    """Return a number up to `start`, with no run between the two that started within the times of `where`.

    Runs are stored about in the order of their start. So either few runs are within these times, and the last
    of them is looked up, or few newer runs must be skipped, and `start` is good enough.
    """
    tests = conditions_by_column(where)["started"]
    query = select(runs.c.seq).where(*tests).with_hint(runs, "INDEXED BY ix_runs_started", "sqlite")
    first = connection.execute(query.order_by(runs.c.started).limit(1)).scalar()
    last = connection.execute(query.order_by(runs.c.started.desc()).limit(1)).scalar()
    if first is None or last is None or last - first > start - last:
        return start
    numbers = query.subquery()
    newest: int = connection.execute(select(func.max(numbers.c.seq))).scalar_one()
    return min(start, newest + 1)


def _look_up(
    connection: Connection, numbers: Sequence[int], wanted: Sequence[ColumnElement[bool]], limit: int
) -> list[int]:
    """Return the first `limit` of these numbers whose runs meet `wanted`."""
    result: list[int] = []
    start, size = 0, 2 * limit  # either most of them match, or hardly any
    while start < len(numbers) and len(result) < limit:
        here = [has_number(connection, numbers[start : start + size]), *wanted]
        result += _select(connection, here, limit - len(result), index=_FILTER_INDEX)
        start, size = start + size, 4 * size
    return result


def _with_text(connection: Connection, where: RunFilter, limit: int, below: int | None) -> list[int]:
    """Return the newest runs that contain a text, or whose name begins with it."""
    piece = where.contains or ""
    others = where.model_copy(update={"contains": None})
    end = _MAX_NUMBER if below is None else below
    rare = _rare(connection, others, end)
    if rare is not None:
        return _look_up(connection, rare, list(conditions(where)), limit)
    rest = list(conditions(others))
    named = _named(connection, others, rest, piece.upper(), limit, below)
    query = (
        select(runs.c.seq)
        .join_from(runs_fts, runs, runs.c.seq == runs_fts.c.rowid)
        .where(matches(piece), runs_fts.c.rowid < end, *rest, text_contains(piece))
        .order_by(runs_fts.c.rowid.desc())
        .limit(limit)
        .with_hint(runs, _FILTER_INDEX, "sqlite")
    )
    # The index leaves out requests that look like the hash of one: the newest of them are read.
    apart = [runs.c.request_text.startswith("sha256:"), runs.c.seq > _last(connection, below) - _TEXT_WINDOW]
    read = _select(connection, [*rest, *apart, text_contains(piece)], limit, below, "NOT INDEXED")
    return sorted({*named, *read, *connection.execute(query).scalars()}, reverse=True)[:limit]


def _named(
    connection: Connection,
    where: RunFilter,
    rest: Sequence[ColumnElement[bool]],
    prefix: str,
    limit: int,
    below: int | None,
) -> list[int]:
    """Return the newest runs whose name begins with `prefix` and that match `where`, that is, the `rest`."""
    end = prefix + "\U0010ffff"
    numbers = _few(connection, select(runs.c.seq).where(runs.c.run.between(prefix, end)))
    if numbers is not None:
        earlier = sorted((seq for seq in numbers if below is None or seq < below), reverse=True)
        return _look_up(connection, earlier, rest, limit)
    # Names follow time, so many with one prefix narrow down little; an expression uses no index.
    return _by_columns(connection, where, [*rest, runs.c.run.concat("").between(prefix, end)], limit, below)
