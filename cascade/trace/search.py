"""Finding the newest runs that a filter wants, fast among a million of them.

SQLite knows little about how many rows a condition leaves, and takes one index a query. So: the runs that
one value of one column has are looked up in its index, which has them in the order of commit; texts in the
full-text index; and the rest in the blocks (`cascade.trace.blocks`), but for the newest runs, which are in
none yet. PostgreSQL plans by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, func, select

from cascade.trace import blocks
from cascade.trace.filters import RunFilter, by_column, conditions, in_texts
from cascade.trace.fulltext import LEAST, candidates, has_index
from cascade.trace.tables import runs

_FEW = 4000  # runs whose texts are read rather than looked up
_IN_ORDER = ("graph", "status", "rule", "tier")
_NEWEST = 20_000  # runs that are looked through for a piece of one or two letters
_AT_ONCE = 20_000  # runs that are asked together, at most


def newest(connection: Connection, where: RunFilter, *, limit: int, below: int | None = None) -> list[int]:
    """Return the numbers of the newest runs in `where`, the newest first.

    Args:
        connection: to the trace database.
        where: which runs. A text of one or two letters is looked for in the newest 20,000 runs only.
        limit: at most so many.
        below: only numbers below this one.
    """
    wanted = list(conditions(where))
    earlier = wanted if below is None else [*wanted, runs.c.seq < below]
    if connection.dialect.name != "sqlite":
        return _numbers(connection, earlier, limit)
    if where.contains is not None and has_index(connection):
        if len(where.contains) >= LEAST:
            return _with_text(connection, where, limit, below)
        last = _last(connection, below)
        return _numbers(connection, [*earlier, runs.c.seq > last - _NEWEST], limit, by_number=True)
    return _by_columns(connection, where, wanted, limit, below)


def _by_columns(
    connection: Connection,
    where: RunFilter,
    wanted: Sequence[ColumnElement[bool]],
    limit: int,
    below: int | None,
) -> list[int]:
    """Return the newest runs as `wanted`, which is what `where` says and perhaps more."""
    earlier = wanted if below is None else [*wanted, runs.c.seq < below]
    if not _needs_blocks(where):
        return _numbers(connection, earlier, limit)
    end = blocks.sealed(connection)
    found = _numbers(connection, [*earlier, runs.c.seq >= end], limit, by_number=end > 0)
    if len(found) < limit and end:
        pieces = blocks.candidates(connection, where, end if below is None else min(below, end))
        found += _asked(connection, pieces, wanted, limit - len(found))
    return found


def _last(connection: Connection, below: int | None) -> int:
    earlier = () if below is None else (runs.c.seq < below,)
    return connection.execute(select(func.max(runs.c.seq).filter(*earlier))).scalar() or 0


def among(numbers: Sequence[int] | blocks.Numbers) -> ColumnElement[bool]:
    """Ask for runs by their numbers, in SQLite: one parameter, not thousands."""
    given = func.json_each(json.dumps([int(number) for number in numbers])).table_valued("value")
    return runs.c.seq.in_(select(given.c.value))


def numbered(connection: Connection, numbers: Sequence[int]) -> ColumnElement[bool]:
    """Ask for runs by their numbers."""
    return among(numbers) if connection.dialect.name == "sqlite" else runs.c.seq.in_(numbers)


def _numbers(
    connection: Connection, wanted: Sequence[ColumnElement[bool]], limit: int, *, by_number: bool = False
) -> list[int]:
    """Return the newest runs as `wanted`; with `by_number`, which is one of them, SQLite takes no index."""
    query = select(runs.c.seq).where(*wanted).order_by(runs.c.seq.desc()).limit(limit)
    if by_number:
        query = query.with_hint(runs, "NOT INDEXED", "sqlite")
    return list(connection.execute(query).scalars())


def _needs_blocks(where: RunFilter) -> bool:
    given = by_column(where)
    if not given or where.grade in ("right", "wrong"):  # few runs are graded
        return False
    if "digest" in given and len(given) == 2:
        return False  # the graph follows from it
    return len(given) > 1 or next(iter(given)) not in _IN_ORDER


def _asked(
    connection: Connection,
    pieces: Iterable[Sequence[int] | blocks.Numbers],
    wanted: Sequence[ColumnElement[bool]],
    limit: int,
) -> list[int]:
    """Return the first `limit` of the numbers in `pieces` whose runs are as `wanted`."""
    found: list[int] = []
    size = 2 * limit  # most of them will do, or none
    for piece in pieces:
        start = 0
        while start < len(piece) and len(found) < limit:
            here = [among(piece[start : start + size]), *wanted]
            found += _numbers(connection, here, limit - len(found), by_number=True)
            start, size = start + size, min(4 * size, _AT_ONCE)
        if len(found) >= limit:
            break
    return found


def _with_text(connection: Connection, where: RunFilter, limit: int, below: int | None) -> list[int]:
    """Return the newest runs in whose texts a piece is, or whose name begins with it."""
    piece = where.contains or ""
    others = where.model_copy(update={"contains": None})
    rest = list(conditions(others))
    found = _named(connection, others, rest, piece.upper(), limit, below)
    texts = _asked(connection, _pieces(connection, where, piece, below), [*rest, in_texts(piece)], limit)
    return sorted({*found, *texts}, reverse=True)[:limit]


def _named(
    connection: Connection,
    where: RunFilter,
    rest: Sequence[ColumnElement[bool]],
    prefix: str,
    limit: int,
    below: int | None,
) -> list[int]:
    """Return the newest runs as in `where`, and so in the `rest`, whose name begins with `prefix`."""
    end = prefix + "\U0010ffff"
    query = select(runs.c.seq).where(runs.c.run.between(prefix, end)).order_by(runs.c.run).limit(_FEW + 1)
    numbers = sorted(connection.execute(query).scalars(), reverse=True)
    if len(numbers) <= _FEW:
        return _asked(connection, [[seq for seq in numbers if below is None or seq < below]], rest, limit)
    # So many that names, which are in the order of time, say little; an expression has no index.
    return _by_columns(connection, where, [*rest, runs.c.run.concat("").between(prefix, end)], limit, below)


def _pieces(
    connection: Connection, where: RunFilter, piece: str, below: int | None
) -> Iterator[Sequence[int]]:
    """Yield the numbers of runs that may be in `where` and have `piece` in their texts, newest first."""
    end = blocks.sealed(connection) if by_column(where) else 0
    if end == 0:
        yield from candidates(connection, piece, below)
        return
    import numpy as np

    left = np.zeros(end, np.bool_)
    for numbers in blocks.candidates(connection, where, end if below is None else min(below, end)):
        left[numbers] = True
    if left.sum() <= _FEW:
        yield range(_last(connection, below), end - 1, -1)
        yield np.flatnonzero(left)[::-1].tolist()
        return
    for chunk in candidates(connection, piece, below):
        yield [number for number in chunk if number >= end or left[number]]
