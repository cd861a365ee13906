"""The ledger of the budgets: a hash chain over what each scope has spent and reserved, beside that of the
runs.

Each commit appends one entry for each day and scope that it changes, with both sums as they are then. So an
edited balance and a removed reservation differ from the last entry, and an edited entry breaks the chain.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    insert,
    inspect,
    select,
)

from cascade.trace._budget_tables import PICODOLLARS, Key, days, metadata, reservations
from cascade.trace._ledger import GENESIS, sign

entries = Table(
    "budget_ledger",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("day", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("spent", BigInteger, nullable=False),  # picodollars, after the change
    Column("held", BigInteger, nullable=False),
    Column("link", LargeBinary, nullable=False),  # hash of this entry and of the previous link
    Column("sign", LargeBinary),  # HMAC of the link, if the writer had a key
)
_LAST = select(entries.c.seq, entries.c.link).order_by(entries.c.seq.desc()).limit(1)


class Balance(NamedTuple):
    """What a scope has spent and holds in reservations on a day, in picodollars."""

    spent: int
    held: int


def append_balances(connection: Connection, balances: dict[Key, Balance], key: bytes | None) -> None:
    """Append an entry for each changed day and scope; the transaction must be the only writer on SQLite."""
    if not balances:
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE budget_ledger IN EXCLUSIVE MODE")
    row = connection.execute(_LAST).first()
    seq, link = (0, GENESIS) if row is None else (row.seq, bytes(row.link))
    rows: list[dict[str, Any]] = []
    for (day, scope), balance in sorted(balances.items()):
        seq, link = seq + 1, _link(link, seq + 1, day, scope, balance)
        rows.append({"seq": seq, "day": day, "scope": scope, **balance._asdict(), "link": link})
        rows[-1]["sign"] = sign(link, key) if key else None
    connection.execute(insert(entries), rows)


def begin_ledger(connection: Connection, key: bytes | None) -> None:
    """Take the balances of a database from before there was this ledger as they are."""
    if connection.execute(_LAST).first() is None:
        append_balances(connection, _balances(connection), key)


def check_budgets(connection: Connection, key: bytes | None) -> tuple[int, Iterator[str]]:
    """Return how many entries the budgets have, and what is wrong with them or with the budgets.

    A database without budgets, or with those of an earlier version alone, has no entries.
    """
    if not inspect(connection).has_table(entries.name):
        return 0, iter(())
    count = connection.execute(select(func.count()).select_from(entries)).scalar_one()
    return count, _problems(connection, key)


def _problems(connection: Connection, key: bytes | None) -> Iterator[str]:
    known: dict[Key, Balance] = {}
    last, link, signed = 0, GENESIS, False
    for row in connection.execute(select(entries).order_by(entries.c.seq)).mappings():
        number, balance = row["seq"], Balance(row["spent"], row["held"])
        stored = _bytes(row["link"])
        if _link(link, number, row["day"], row["scope"], balance) != stored or number != last + 1:
            of = f"{row['scope']} on {row['day']}"
            yield f"entry {number} of the budgets ({of}) does not follow from entry {last}"
        if key is not None:
            fitting = row["sign"] is not None and hmac.compare_digest(_bytes(row["sign"]), sign(stored, key))
            if row["sign"] is None and signed:
                yield f"entry {number} of the budgets is not signed, though entries before it are"
            elif row["sign"] is not None and not fitting:
                yield f"the signature of entry {number} of the budgets is not by this key"
            signed = signed or fitting
        last, link = number, stored
        known[row["day"], row["scope"]] = balance
    yield from _differences(known, _balances(connection))


def _differences(known: dict[Key, Balance], stored: dict[Key, Balance]) -> Iterator[str]:
    nothing = Balance(0, 0)
    for day, scope in sorted(known.keys() | stored.keys()):
        was, now = known.get((day, scope), nothing), stored.get((day, scope), nothing)
        for name, before, after in (("spent", was.spent, now.spent), ("reserved", was.held, now.held)):
            if before != after:
                yield (
                    f"what {scope} has {name} on {day} was edited: ${_usd(before)} in their ledger, "
                    f"${_usd(after)} in the table"
                )


def _balances(connection: Connection) -> dict[Key, Balance]:
    spent = {(row.day, row.scope): row.spent for row in connection.execute(select(days))}
    total = select(reservations.c.day, reservations.c.scope, func.sum(reservations.c.amount))
    held: dict[Key, Any] = {
        (day, scope): amount
        for day, scope, amount in connection.execute(total.group_by(reservations.c.day, reservations.c.scope))
    }
    return {
        key: balance
        for key in spent.keys() | held.keys()
        if (balance := Balance(_whole(spent.get(key, 0)), _whole(held.get(key, 0)))) != (0, 0)
    }


def _whole(value: Any) -> Any:
    """Return a sum as the number that it is; PostgreSQL adds up to decimals, an edited table to anything."""
    try:
        return int(value) if int(value) == value else value
    except (TypeError, ValueError, OverflowError):
        return value


def _usd(amount: Any) -> str:
    return f"{amount / PICODOLLARS:.6f}" if isinstance(amount, int | float) else repr(amount)


def _link(previous: bytes, seq: int, day: str, scope: str, balance: Balance) -> bytes:
    content: Iterable[Any] = [seq, day, scope, balance.spent, balance.held]
    return hashlib.sha256(previous + json.dumps(content, default=repr).encode()).digest()


def _bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else repr(value).encode()
