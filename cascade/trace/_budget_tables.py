"""The tables of budgets, and the statements that run under their locks."""

from __future__ import annotations

import logging
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
from cascade.records import BudgetShortfall

PICODOLLARS = 10**12  # in a dollar
MOST = 2**63 - 1  # picodollars that a database holds: nine million dollars
TOO_MUCH = MOST + 1
# Separate metadata: the trace store and its migrations do not know these tables.
metadata = MetaData()

days = Table(
    "budget_days",
    metadata,
    Column("day", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("spent", BigInteger, nullable=False),
)

reservations = Table(
    "budget_reservations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("day", Text, nullable=False, index=True),
    Column("amount", BigInteger, nullable=False),
    Column("until", Text, nullable=False),
    Column("run", Text),
)


_log = logging.getLogger("cascade.trace")
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
Key = tuple[str, str]  # a day and a scope


def _on(table: Table) -> Any:
    return table.c.day.in_(bindparam("on", expanding=True)) & table.c.scope.in_(
        bindparam("of", expanding=True)
    )


_HELD = func.coalesce(func.sum(reservations.c.amount), 0)
_DAYS = select(days.c.day, days.c.scope, days.c.spent).where(_on(days)).order_by(days.c.day, days.c.scope)
_SUMS = (
    select(reservations.c.day, reservations.c.scope, _HELD)
    .where(_on(reservations))
    .group_by(reservations.c.day, reservations.c.scope)
)
_SETTLED = select(reservations.c.id, reservations.c.scope, reservations.c.amount).where(
    reservations.c.id.in_(bindparam("ids", expanding=True))
)
_DROP = delete(reservations).where(
    reservations.c.id == bindparam("an_id"), reservations.c.scope == bindparam("a_scope")
)
_PAY = (
    update(days)
    .where(days.c.day == bindparam("a_day"), days.c.scope == bindparam("a_scope"))
    .values(spent=bindparam("paid"))
)


def begin(connection: Connection) -> None:
    """Begin a transaction that no other writer interleaves with."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # readers that write later could not see each other


class BudgetSnapshot:
    """Balances of some days and scopes: read once, changed in memory, and written by `save`.

    Args:
        connection: in a transaction started by `begin`.
        keys: the days and scopes. Missing rows are created; all are locked in the same order.
        settled: ids of the reservations that will be settled.
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
        sums = connection.execute(_SUMS, where)  # after the lock, to see the reservations of others
        self._held = dict.fromkeys(self._spent, 0) | {(day, of): int(held) for day, of, held in sums}
        to_settle = connection.execute(_SETTLED, {"ids": list(settled)}) if settled else ()
        self._stored = {(id_, scope): int(amount) for id_, scope, amount in to_settle}
        self._added: dict[Key, dict[str, Any]] = {}
        self._removed: list[dict[str, str]] = []
        self._changed: set[Key] = set()  # whose spending is another
        self._released: set[Key] = set()  # whose reservations are fewer

    def shortfall(self, day: str, budget: Budget, amount: int) -> BudgetShortfall | None:
        """Return what `budget` lacks of `amount` picodollars on `day`, or None if it has them."""
        spent, held = self._spent[day, budget.scope], self._held[day, budget.scope]
        limit = min(to_picodollars(budget.day_usd), MOST)
        if spent + held + amount <= limit:
            return None
        return BudgetShortfall(
            scope=budget.scope,
            day=day,
            allowed_usd=budget.day_usd,
            spent_usd=spent / PICODOLLARS,
            reserved_usd=held / PICODOLLARS,
            worst_case_usd=amount / PICODOLLARS,
        )

    def reserve(self, row: dict[str, Any]) -> None:
        """Add a row of `reservations`."""
        self._added[row["id"], row["scope"]] = row
        self._held[row["day"], row["scope"]] += row["amount"]

    def settle(self, id_: str, day: str, scope: str, paid: int) -> None:
        """Replace a reservation by `paid`, if it still exists."""
        new = self._added.pop((id_, scope), None)
        amount = self._stored.pop((id_, scope), None) if new is None else new["amount"]
        if amount is None:
            return
        if new is None:
            self._removed.append({"an_id": id_, "a_scope": scope})
        self._held[day, scope] -= amount
        self._released.add((day, scope))
        if paid:
            spent = self._spent[day, scope] + paid
            if spent > MOST:
                text = "budget %s on %s: $%g were spent, more than can be counted; it is used up"
                _log.error(text, scope, day, spent / PICODOLLARS)
            self._spent[day, scope] = min(spent, MOST)
            self._changed.add((day, scope))

    def forget(self, day: str, scope: str, before: str) -> None:
        """Forget what was spent, and the reservations that expired before `before`."""
        old = (reservations.c.day == day, reservations.c.scope == scope, reservations.c.until < before)
        for id_, amount in self._connection.execute(
            select(reservations.c.id, reservations.c.amount).where(*old)
        ):
            self._stored[id_, scope] = int(amount)
            self.settle(id_, day, scope, 0)
        self._spent[day, scope] = 0
        self._changed.add((day, scope))

    def save(self) -> dict[Key, tuple[int, int]]:
        """Write the changes; return what is spent and held now on each day and scope that they concern."""
        paid = [{"a_day": d, "a_scope": scope, "paid": self._spent[d, scope]} for d, scope in self._changed]
        for statement, rows in (
            (insert(reservations), list(self._added.values())),
            (_DROP, self._removed),
            (_PAY, paid),
        ):
            if rows:
                self._connection.execute(statement, rows)
        moved = {(row["day"], row["scope"]) for row in self._added.values()} | self._released
        return {key: (self._spent[key], self._held[key]) for key in self._changed | moved}

    def _locked(self, where: dict[str, list[str]]) -> dict[Key, int]:
        rows = self._connection.execute(_DAYS.with_for_update(), where)
        return {(day, scope): int(spent) for day, scope, spent in rows}


def to_picodollars(usd: float) -> int:
    """Return `usd` in picodollars, rounded up after dropping the rounding error of the float.

    More than a database holds, NaN too, becomes one more than that (`TOO_MUCH`), and less than nothing
    nothing.
    """
    if usd <= 0:
        return 0
    if math.isnan(usd) or usd * PICODOLLARS > MOST:
        return TOO_MUCH
    return math.ceil(round(usd * PICODOLLARS, 3))
