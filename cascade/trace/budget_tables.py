"""The tables of what budgets have spent, and the statements that run under their locks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, func, select
from sqlalchemy.dialects import postgresql, sqlite

from cascade.policy.budget import Budget

PICO = 10**12  # picodollars in a dollar
# Tables of their own metadata: neither the trace store nor its migrations know them.
metadata = MetaData()

days = Table(
    "budget_days",
    metadata,
    Column("day", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("spent", BigInteger, nullable=False),
)

holds = Table(
    "budget_holds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("day", Text, nullable=False, index=True),
    Column("amount", BigInteger, nullable=False),
    Column("until", Text, nullable=False),
    Column("run", Text),
)


INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def begin(connection: Connection) -> None:
    """Begin a transaction that no other writer interleaves with."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # readers that write later could not see each other


def lock_days(connection: Connection, keys: Sequence[tuple[str, str]]) -> None:
    """Make sure that every (day, scope) has a row, and lock them, always in the same order."""
    make = INSERTS[connection.dialect.name]
    for day, scope in keys:
        row = make(days).values(day=day, scope=scope, spent=0)
        connection.execute(row.on_conflict_do_nothing())
        mine = select(days.c.spent).where(days.c.day == day, days.c.scope == scope)
        connection.execute(mine.with_for_update())


def shortfall(connection: Connection, day: str, budget: Budget, amount: int) -> str | None:
    """Return why `amount` picodollars are not left in `budget` on `day`, or None if they are."""
    spent = connection.execute(
        select(days.c.spent).where(days.c.day == day, days.c.scope == budget.scope)
    ).scalar_one()
    total = select(func.coalesce(func.sum(holds.c.amount), 0)).where(
        holds.c.day == day, holds.c.scope == budget.scope
    )
    held = int(connection.execute(total).scalar_one())
    limit = round(budget.day_usd * PICO)
    if spent + held + amount <= limit:
        return None
    left = max(0, limit - spent - held) / PICO
    return (
        f"worst case ${amount / PICO:.6f}, ${left:.6f} left of ${budget.day_usd:.6f} for {budget.scope} "
        f"on {day} (${held / PICO:.6f} reserved)"
    )


def pico(usd: float) -> int:
    """Return `usd` in picodollars, rounded up, but not because of the last bits of a float."""
    return math.ceil(round(usd * PICO, 3))
