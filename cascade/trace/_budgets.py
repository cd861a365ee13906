"""Daily budgets in the trace database: money is reserved before a call and settled after it.

A budget limits what a scope (`graph:NAME`, `account:NAME`) may spend on one UTC day. A reservation takes the
worst case out of every budget at once, or out of none if one of them has too little left. All processes that
share the database share its budgets: SQLite's write lock (BEGIN IMMEDIATE) or Postgres' row locks (SELECT …
FOR UPDATE) serialize the reservations.

The reservation of a process that died counts as spent until someone resets it (`cascade budget reset`): what
its call cost is unknown, and overspending cannot be undone.

Money is in whole picodollars (1e-12 USD), so that sums are exact. One thread writes and commits all waiting
changes together, as in the trace store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from cascade.errors import TraceError
from cascade.policy.budget import Budget
from cascade.records import BudgetShortfall, new_run_id
from cascade.trace._budget_ledger import Balance, append_balances, begin_ledger
from cascade.trace._budget_tables import (
    INSERTS,
    PICODOLLARS,
    BudgetSnapshot,
    Key,
    begin,
    days,
    metadata,
    reservations,
    to_picodollars,
)
from cascade.trace._ledger import read_key
from cascade.trace._writing import BatchWriter
from cascade.trace.database import display_url, lock_tables, open_engine, parse_url, trace_error


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money that is reserved in some scopes; `day` pays, whenever the reservation is settled."""

    id: str
    day: str
    scopes: tuple[str, ...]


class BudgetBalance(NamedTuple):
    """What a scope has spent and reserved on a day, in USD; `abandoned` is the expired part of `held`."""

    day: str
    scope: str
    spent: float
    held: float
    abandoned: float


class BudgetBook:
    """Reserves and settles money; every method may be called from any thread.

    Args:
        url: a SQLAlchemy URL of SQLite or Postgres, or the path of a SQLite file.
        clock: returns the current time, with a time zone.
        granted: returns what an account's key allows it to spend per day, in USD, or None for no limit.

    Raises:
        TraceError: the database cannot be opened.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        granted: Callable[[str], float | None] | None = None,
    ) -> None:
        self._url = parse_url(url)
        self.granted = granted
        self._clock = clock
        self._key = read_key()
        engine = open_engine(self._url, create=True)
        if engine is None or engine.dialect.name not in INSERTS:
            raise TraceError(f"trace database {display_url(self._url)}: budgets need SQLite or Postgres")
        self._engine: Engine = engine
        self._writer: BatchWriter[_Change] = BatchWriter("cascade-budgets", self._commit)
        try:
            with engine.connect() as connection:
                lock_tables(connection)
                metadata.create_all(connection)
                begin_ledger(connection, self._key)
                connection.commit()
        except SQLAlchemyError as error:
            engine.dispose()
            raise trace_error(error, self._url) from error

    def reserve(
        self, budgets: Sequence[Budget], usd: float, *, seconds: float = 3600.0, run: str | None = None
    ) -> Future[Reservation | BudgetShortfall]:
        """Reserve `usd` in every budget; the future holds the reservation, or what one of them lacks.

        Args:
            budgets: the budgets that pay, each scope once.
            usd: the worst-case cost.
            seconds: after this time, a reservation that was not settled counts as abandoned.
            run: the run that reserves, for people who inspect the table.
        """
        now = self._clock().astimezone(UTC)
        amount, until = to_picodollars(usd), (now + timedelta(seconds=seconds)).isoformat(timespec="seconds")
        reservation = Reservation(
            new_run_id(), now.date().isoformat(), tuple(budget.scope for budget in budgets)
        )

        def change(snapshot: BudgetSnapshot) -> Reservation | BudgetShortfall:
            for budget in budgets:
                shortfall = snapshot.shortfall(reservation.day, budget, amount)
                if shortfall is not None:
                    return shortfall
            for scope in reservation.scopes:
                row = {"id": reservation.id, "scope": scope, "day": reservation.day, "amount": amount}
                snapshot.reserve(row | {"until": until, "run": run})
            return reservation

        return self._submit([(reservation.day, scope) for scope in reservation.scopes], change)

    def settle(self, reservation: Reservation, usd: float) -> Future[None]:
        """Replace a reservation by what was really spent; settling it again changes nothing."""
        amount = to_picodollars(usd)

        def change(snapshot: BudgetSnapshot) -> None:
            for scope in reservation.scopes:
                snapshot.settle(reservation.id, reservation.day, scope, amount)

        return self._submit(
            [(reservation.day, scope) for scope in reservation.scopes], change, reservation.id
        )

    def balances(self, day: str | None = None) -> list[BudgetBalance]:
        """Return the balances of all scopes on `day` (ISO 8601; default: today, UTC), sorted by scope.

        Raises:
            TraceError: the database cannot be read.
        """
        now = self._clock().astimezone(UTC)
        day = day or now.date().isoformat()
        total = func.coalesce(func.sum(reservations.c.amount), 0)
        try:
            with self._engine.connect() as connection:
                spent = connection.execute(select(days.c.scope, days.c.spent).where(days.c.day == day)).all()
                held = (
                    select(reservations.c.scope, total)
                    .where(reservations.c.day == day)
                    .group_by(reservations.c.scope)
                )
                reserved = {scope: int(amount) for scope, amount in connection.execute(held)}
                expired = held.where(reservations.c.until < now.isoformat(timespec="seconds"))
                abandoned = {scope: int(amount) for scope, amount in connection.execute(expired)}
        except SQLAlchemyError as error:
            raise trace_error(error, self._url) from error
        return [
            BudgetBalance(
                day,
                scope,
                paid / PICODOLLARS,
                reserved.get(scope, 0) / PICODOLLARS,
                abandoned.get(scope, 0) / PICODOLLARS,
            )
            for scope, paid in sorted(map(tuple, spent))
        ]

    def reset(self, scope: str, day: str | None = None) -> Future[None]:
        """Forget what `scope` spent on `day`, and its abandoned reservations; running calls keep theirs."""
        now = self._clock().astimezone(UTC)
        on = day or now.date().isoformat()

        def change(snapshot: BudgetSnapshot) -> None:
            snapshot.forget(on, scope, now.isoformat(timespec="seconds"))

        return self._submit([(on, scope)], change)

    def close(self) -> None:
        """Write what was submitted, then release the database."""
        self._writer.close()
        self._engine.dispose()

    def _submit(
        self, keys: list[Key], change: Callable[[BudgetSnapshot], Any], settles: str | None = None
    ) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        if not self._writer.put(_Change(keys, change, future, settles)):
            future.set_exception(TraceError(f"trace database {display_url(self._url)}: this book is closed"))
        return future

    def _commit(self, group: list[_Change]) -> None:
        try:
            with self._engine.connect() as connection:
                begin(connection)
                keys = {key for change in group for key in change.keys}
                settled = [change.settles for change in group if change.settles]
                snapshot = BudgetSnapshot(connection, keys, settled)
                results = [change.apply(snapshot) for change in group]
                balances = {at: Balance(*both) for at, both in snapshot.save().items()}
                append_balances(connection, balances, self._key)
                connection.commit()
        except Exception as error:  # noqa: BLE001 - it belongs to the callers, not to this thread
            reason = error
            if isinstance(error, SQLAlchemyError):
                self._engine.dispose()  # the next group starts with a new connection
                reason = trace_error(error, self._url)
                reason.__cause__ = error
            for change in group:
                change.future.set_exception(reason)
            return
        for change, value in zip(group, results, strict=True):
            change.future.set_result(value)


class _Change(NamedTuple):
    """A queued change: the days and scopes it touches, what it does, its future, and the id it settles."""

    keys: list[Key]
    apply: Callable[[BudgetSnapshot], Any]
    future: Future[Any]
    settles: str | None
