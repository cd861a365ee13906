"""The tables of what budgets have spent, and the statements that run under their locks."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
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
Key = tuple[str, str]  # a day and a scope


def _on(table: Table) -> Any:
    return table.c.day.in_(bindparam("on", expanding=True)) & table.c.scope.in_(
        bindparam("of", expanding=True)
    )


_HELD = func.coalesce(func.sum(holds.c.amount), 0)
_DAYS = select(days.c.day, days.c.scope, days.c.spent).where(_on(days)).order_by(days.c.day, days.c.scope)
_SUMS = select(holds.c.day, holds.c.scope, _HELD).where(_on(holds)).group_by(holds.c.day, holds.c.scope)
_SETTLED = select(holds.c.id, holds.c.scope, holds.c.amount).where(
    holds.c.id.in_(bindparam("ids", expanding=True))
)
_DROP = delete(holds).where(holds.c.id == bindparam("an_id"), holds.c.scope == bindparam("a_scope"))
_PAY = (
    update(days)
    .where(days.c.day == bindparam("a_day"), days.c.scope == bindparam("a_scope"))
    .values(spent=bindparam("paid"))
)


def begin(connection: Connection) -> None:
    """Begin a transaction that no other writer interleaves with."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # readers that write later could not see each other


class Sheet:
    """The balances of some days, in a transaction: read once, changed here, and written once, by `save`.

    Args:
        connection: in a transaction that `begin` began.
        keys: the days and scopes; their rows are made if they are missing, and locked in one order.
        settled: the ids of reservations that will be settled.
    """

    def __init__(self, connection: Connection, keys: Collection[Key], settled: Collection[str]) -> None:
        self._connection = connection
        where = {"on": sorted({day for day, _ in keys}), "of": sorted({scope for _, scope in keys})}
        self._spent = self._locked(where)
        missing = sorted(set(keys) - self._spent.keys())
        if missing:
            rows = [{"day": day, "scope": scope, "spent": 0} for day, scope in missing]
            connection.execute(INSERTS[connection.dialect.name](days).on_conflict_do_nothing(), rows)
            self._spent = self._locked(where)
        sums = connection.execute(_SUMS, where)  # after the lock, to see what others have reserved
        self._held = dict.fromkeys(self._spent, 0) | {(day, of): int(held) for day, of, held in sums}
        found = connection.execute(_SETTLED, {"ids": list(settled)}) if settled else ()
        self._there = {(id_, scope): int(amount) for id_, scope, amount in found}
        self._new: dict[Key, dict[str, Any]] = {}
        self._gone: list[dict[str, str]] = []
        self._paid: set[Key] = set()

    def shortfall(self, day: str, budget: Budget, amount: int) -> str | None:
        """Return why `amount` picodollars are not left in `budget` on `day`, or None if they are."""
        spent, held = self._spent[day, budget.scope], self._held[day, budget.scope]
        limit = round(budget.day_usd * PICO)
        if spent + held + amount <= limit:
            return None
        left = max(0, limit - spent - held) / PICO
        return (
            f"worst case ${amount / PICO:.6f}, ${left:.6f} left of ${budget.day_usd:.6f} for {budget.scope} "
            f"on {day} (${held / PICO:.6f} reserved)"
        )

    def reserve(self, row: dict[str, Any]) -> None:
        """Add a row of `holds`."""
        self._new[row["id"], row["scope"]] = row
        self._held[row["day"], row["scope"]] += row["amount"]

    def settle(self, id_: str, day: str, scope: str, paid: int) -> None:
        """Put `paid` in the place of a reservation, if it is still there."""
        new = self._new.pop((id_, scope), None)
        amount = self._there.pop((id_, scope), None) if new is None else new["amount"]
        if amount is None:
            return
        if new is None:
            self._gone.append({"an_id": id_, "a_scope": scope})
        self._held[day, scope] -= amount
        if paid:
            self._spent[day, scope] += paid
            self._paid.add((day, scope))

    def forget(self, day: str, scope: str, before: str) -> None:
        """Forget what was spent, and reservations that were abandoned `before`."""
        old = (holds.c.day == day, holds.c.scope == scope, holds.c.until < before)
        for id_, amount in self._connection.execute(select(holds.c.id, holds.c.amount).where(*old)):
            self._there[id_, scope] = int(amount)
            self.settle(id_, day, scope, 0)
        self._spent[day, scope] = 0
        self._paid.add((day, scope))

    def save(self) -> None:
        """Write what has changed."""
        paid = [{"a_day": d, "a_scope": scope, "paid": self._spent[d, scope]} for d, scope in self._paid]
        for statement, rows in ((insert(holds), list(self._new.values())), (_DROP, self._gone), (_PAY, paid)):
            if rows:
                self._connection.execute(statement, rows)

    def _locked(self, where: dict[str, list[str]]) -> dict[Key, int]:
        found = self._connection.execute(_DAYS.with_for_update(), where)
        return {(day, scope): int(spent) for day, scope, spent in found}


def pico(usd: float) -> int:
    """Return `usd` in picodollars, rounded up, but not because of the last bits of a float."""
    return math.ceil(round(usd * PICO, 3))
