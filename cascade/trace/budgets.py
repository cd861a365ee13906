"""What was spent on each day, in the trace database: reserved before a call, settled after it.

A budget is a scope (`graph:NAME`, `account:NAME`) and the most that may be spent in it on one UTC day. A
reservation takes the worst case out of every budget at once or, if one of them has not that much left, out of
none. All processes that share the database share its budgets: SQLite's write lock (BEGIN IMMEDIATE) or
Postgres' row locks (SELECT … FOR UPDATE) put the reservations in one order.

The reservation of a process that died counts as spent until someone resets it (`cascade budget reset`):
nobody knows what its call cost, and a budget that is overspent cannot be taken back.

Money is in whole picodollars (1e-12 USD), so that sums are exact. One thread writes; what waits is committed
together, as in the trace store.
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
from cascade.records import new_run_id
from cascade.trace.budget_tables import (
    INSERTS,
    PICO,
    Key,
    Sheet,
    begin,
    days,
    holds,
    metadata,
    pico,
)
from cascade.trace.database import failure, lock_tables, open_engine, parse_url, place
from cascade.trace.writer import Writer

__all__ = ["Balance", "Budget", "BudgetBook", "Hold"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation; `day` is the one that pays, whenever it is settled."""

    id: str
    day: str
    scopes: tuple[str, ...]


class Balance(NamedTuple):
    """What a scope has spent on a day, in USD; `abandoned` is the part of `held` that nobody settles."""

    day: str
    scope: str
    spent: float
    held: float
    abandoned: float


class BudgetBook:
    """Reserves and settles; every method may be called from any thread.

    Args:
        url: a SQLAlchemy URL of SQLite or Postgres, or the path of a SQLite file.
        clock: the time now, with a zone.
        granted: what an account may spend on a day by its key, in USD; None: nothing is said of it.

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
        engine = open_engine(self._url, create=True)
        if engine is None or engine.dialect.name not in INSERTS:
            raise TraceError(f"trace database {place(self._url)}: budgets need SQLite or Postgres")
        self._engine: Engine = engine
        self._writer: Writer[_Change] = Writer("cascade-budgets", self._commit)
        try:
            with engine.connect() as connection:
                lock_tables(connection)
                metadata.create_all(connection)
                connection.commit()
        except SQLAlchemyError as error:
            engine.dispose()
            raise failure(error, self._url) from error

    def reserve(
        self, budgets: Sequence[Budget], usd: float, *, seconds: float = 3600.0, run: str | None = None
    ) -> Future[Hold | str]:
        """Take `usd` out of every budget; the future gives the reservation, or what is missing where.

        Args:
            budgets: whose days pay, each scope once.
            usd: the worst case of what is about to happen.
            seconds: when it is certainly over; a reservation that is still there then is abandoned.
            run: the run that it is for, for people who look into it.
        """
        now = self._clock().astimezone(UTC)
        amount, until = pico(usd), (now + timedelta(seconds=seconds)).isoformat(timespec="seconds")
        hold = Hold(new_run_id(), now.date().isoformat(), tuple(budget.scope for budget in budgets))

        def change(sheet: Sheet) -> Hold | str:
            for budget in budgets:
                short = sheet.shortfall(hold.day, budget, amount)
                if short is not None:
                    return short
            for scope in hold.scopes:
                row = {"id": hold.id, "scope": scope, "day": hold.day, "amount": amount}
                sheet.reserve(row | {"until": until, "run": run})
            return hold

        return self._submit([(hold.day, scope) for scope in hold.scopes], change)

    def settle(self, hold: Hold, usd: float) -> Future[None]:
        """Put what was really spent in the place of a reservation; a second time changes nothing."""
        amount = pico(usd)

        def change(sheet: Sheet) -> None:
            for scope in hold.scopes:
                sheet.settle(hold.id, hold.day, scope, amount)

        return self._submit([(hold.day, scope) for scope in hold.scopes], change, hold.id)

    def balances(self, day: str | None = None) -> list[Balance]:
        """Return what every scope has spent on `day` (ISO 8601; default: today), in order of their names.

        Raises:
            TraceError: the database cannot be read.
        """
        now = self._clock().astimezone(UTC)
        day = day or now.date().isoformat()
        left = func.coalesce(func.sum(holds.c.amount), 0)
        try:
            with self._engine.connect() as connection:
                spent = connection.execute(select(days.c.scope, days.c.spent).where(days.c.day == day)).all()
                held = select(holds.c.scope, left).where(holds.c.day == day).group_by(holds.c.scope)
                every = {scope: int(amount) for scope, amount in connection.execute(held)}
                past = held.where(holds.c.until < now.isoformat(timespec="seconds"))
                gone = {scope: int(amount) for scope, amount in connection.execute(past)}
        except SQLAlchemyError as error:
            raise failure(error, self._url) from error
        rows = [(s, paid, every.get(s, 0), gone.get(s, 0)) for s, paid in sorted(map(tuple, spent))]
        return [Balance(day, s, paid / PICO, held_ / PICO, old / PICO) for s, paid, held_, old in rows]

    def reset(self, scope: str, day: str | None = None) -> Future[None]:
        """Forget what `scope` spent on `day`, and abandoned reservations; calls at work keep theirs."""
        now = self._clock().astimezone(UTC)
        on = day or now.date().isoformat()

        def change(sheet: Sheet) -> None:
            sheet.forget(on, scope, now.isoformat(timespec="seconds"))

        return self._submit([(on, scope)], change)

    def close(self) -> None:
        """Write what was submitted, then release the database."""
        self._writer.close()
        self._engine.dispose()

    def _submit(
        self, keys: list[Key], change: Callable[[Sheet], Any], settles: str | None = None
    ) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        if not self._writer.put(_Change(keys, change, future, settles)):
            future.set_exception(TraceError(f"trace database {place(self._url)}: this book is closed"))
        return future

    def _commit(self, group: list[_Change]) -> None:
        try:
            with self._engine.connect() as connection:
                begin(connection)
                keys = {key for change in group for key in change.keys}
                sheet = Sheet(connection, keys, [change.settles for change in group if change.settles])
                done = [change.make(sheet) for change in group]
                sheet.save()
                connection.commit()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the callers, not to this thread
            reason = error
            if isinstance(error, SQLAlchemyError):
                self._engine.dispose()  # the next group starts with a new connection
                reason = failure(error, self._url)
                reason.__cause__ = error
            for change in group:
                change.future.set_exception(reason)
            return
        for change, value in zip(group, done, strict=True):
            change.future.set_result(value)


class _Change(NamedTuple):
    """A change that waits: the days that it touches, what to do, who waits, and what it settles (an id)."""

    keys: list[Key]
    make: Callable[[Sheet], Any]
    future: Future[Any]
    settles: str | None
