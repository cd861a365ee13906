"""Columns of the runs in one piece: a million runs are asked whatever filters ask in some milliseconds.

SQLite would read a row, or an entry of an index, for every run that one condition leaves and another does
not. Here the runs are cut into blocks of 4,096 numbers. When a block is full it is summed up in the table
`blocks`: for each text that a column has in it, one bit a run; for each column of numbers, the numbers; the
first and the last start time. Runs are not changed once they are stored, so a block stays true; where runs
were removed it names too many, never too few: who looks here then asks the runs themselves. PostgreSQL
plans by itself and has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, insert, select

from cascade.trace.filters import RunFilter
from cascade.trace.progress import Progress
from cascade.trace.tables import blocks, dumps, runs

if TYPE_CHECKING:
    import numpy as np

    Bits = np.ndarray[Any, np.dtype[np.bool_]]
    Numbers = np.ndarray[Any, np.dtype[np.int64]]

SIZE = 4096  # numbers in a block
_TEXTS = ("status", "rule", "tier", "graph", "digest")
_NUMBERS = ("confidence", "cost_usd")
_AT_ONCE = 64  # blocks that are read together, at most


def sealed(connection: Connection) -> int:
    """Return the number below which all runs are in blocks."""
    last = connection.execute(
        select(func.max(blocks.c.block)).where(blocks.c.name == "started", blocks.c.value == "")
    ).scalar()
    return 0 if last is None else (last + 1) * SIZE


def seal(connection: Connection, last: int) -> None:
    """Sum up the blocks that are full, in a transaction that holds the ledger's lock.

    Args:
        connection: to the trace database.
        last: the last number that was given.
    """
    if connection.dialect.name != "sqlite" or last < SIZE - 1:
        return
    end = (last + 1) // SIZE
    progress = Progress("summing up the runs in blocks", end)
    for block in range(sealed(connection) // SIZE, end):
        sum_up(connection, block)
        progress.reached(block + 1)


def sum_up(connection: Connection, block: int) -> None:
    """Sum up one block, anew if it was before."""
    import numpy as np

    first = block * SIZE
    columns = [runs.c[name] for name in ("seq", "started", *_TEXTS, *_NUMBERS)]
    query = select(*columns).where(runs.c.seq.between(first, first + SIZE - 1))
    found = connection.execute(query).all()
    rows: list[dict[str, Any]] = []

    def add(name: str, value: str, data: bytes) -> None:
        rows.append({"name": name, "value": value, "block": block, "data": data})

    seqs, times, *others = zip(*found, strict=True) if found else [()] * len(columns)
    places = np.array(seqs, np.int64) - first
    add("started", "", dumps([min(times), max(times)] if times else []).encode())
    held = dict(zip((*_TEXTS, *_NUMBERS), others, strict=True))
    for name in _TEXTS:
        having: dict[str, list[int]] = {}
        for place, value in zip(places.tolist(), held[name], strict=True):
            if value is not None:
                having.setdefault(value, []).append(place)
        for value, theirs in having.items():
            bits = np.zeros(SIZE, np.bool_)
            bits[theirs] = True
            add(name, value, np.packbits(bits).tobytes())
    for name in _NUMBERS:
        numbers = np.full(SIZE, np.nan)
        numbers[places] = np.array(held[name], np.float64)  # None becomes NaN
        add(name, "", numbers.tobytes())
    connection.execute(delete(blocks).where(blocks.c.block == block))
    connection.execute(insert(blocks), rows)


def candidates(connection: Connection, where: RunFilter, below: int) -> Iterator[Numbers]:
    """Yield the numbers in blocks of runs that may be in `where`, the newest first, some blocks at a time.

    What `where` says of texts and grades does not count, and its times only as far as whole blocks go.

    Args:
        connection: to a SQLite database.
        where: which runs; it must say something of a column that has blocks.
        below: only numbers below this one.
    """
    import numpy as np

    end, many = -(-below // SIZE), 4
    while end > 0:
        begin = max(0, end - many)
        bits = _bits(connection, where, begin, end)
        found = np.flatnonzero(bits) + begin * SIZE
        found = found[found < below][::-1]
        if len(found):
            yield found
        end, many = begin, min(2 * many, _AT_ONCE)


def _bits(connection: Connection, where: RunFilter, begin: int, end: int) -> Bits:
    """Return for each number in the blocks from `begin` to `end` whether its run may be in `where`."""
    import numpy as np

    left = np.ones((end - begin, SIZE), np.bool_)
    for column, value in _equal(where).items():
        held = np.zeros_like(left)
        for block, data in _read(connection, column, value, begin, end):
            held[block - begin] = np.unpackbits(np.frombuffer(data, np.uint8)).view(np.bool_)
        left &= held
    bounds = {
        "confidence": (where.confidence_min, where.confidence_max),
        "cost_usd": (where.cost_min, where.cost_max),
    }
    for column, (least, most) in bounds.items():
        if least is None and most is None:
            continue
        numbers = np.full(left.shape, np.nan)  # no number is neither less nor more
        for block, data in _read(connection, column, "", begin, end):
            numbers[block - begin] = np.frombuffer(data)
        left &= (numbers >= (-np.inf if least is None else least)) & (
            numbers <= (np.inf if most is None else most)
        )
    if where.since is not None or where.until is not None:
        for block, data in _read(connection, "started", "", begin, end):
            times = json.loads(data)
            left[block - begin] &= bool(times) and _overlap(times, where.since, where.until)
    return left.reshape(-1)


def _equal(where: RunFilter) -> dict[str, str]:
    """Return the texts that `where` asks for."""
    name, at, digest = (where.graph or "").partition("@")
    given = {"status": where.status, "rule": where.rule, "tier": where.tier}
    given |= {"graph": None if where.graph is None else name, "digest": digest if at else None}
    return {column: value for column, value in given.items() if value is not None}


def _overlap(times: list[str], since: str | None, until: str | None) -> bool:
    """Return whether some of a block's runs may have started from `since` on and before `until`."""
    first, last = times
    return (since is None or last >= since) and (until is None or first < until)


def _read(connection: Connection, name: str, value: str, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    query = select(blocks.c.block, blocks.c.data).where(
        blocks.c.name == name, blocks.c.value == value, blocks.c.block >= begin, blocks.c.block < end
    )
    yield from ((row[0], row[1]) for row in connection.execute(query))
