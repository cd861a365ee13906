"""What one stage may spend: its share of the run's limits, and reservations from the day's budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from cascade.errors import TraceError
from cascade.policy.budget import Budget, Spend, day_budgets, over_limit
from cascade.records import BudgetShortfall, Call, Request
from cascade.spec.schema import Graph

if TYPE_CHECKING:
    from cascade.trace import BudgetBook, Reservation

_SPARE = 3600.0  # seconds after which a reservation that nobody settled is abandoned, beyond the call's time


class StageBudget:
    """Reserves before calls and settles after them.

    Args:
        graph: its limits and budgets hold.
        request: its account pays.
        used: what the run has used.
        book: keeps the budgets of the day; None if there are none.
        run: the run's id, shown with reservations.
    """

    def __init__(
        self, graph: Graph, request: Request, used: Spend, book: BudgetBook | None, run: str | None
    ) -> None:
        self._limits, self._used, self._run = graph.limits, used, run
        self._budgets: Sequence[Budget] = []
        if book is not None:
            self._budgets = day_budgets(graph, request, book.granted)
        self._book = book
        self._holds: list[Reservation] = []
        self.worst = Spend()  # what is reserved for the stage
        self.beside: StageBudget | None = None  # of the stage that runs at the same time (hedge)

    async def reserve(self, worst: Spend) -> BudgetShortfall | str | None:
        """Reserve the stage's worst case in the day's budgets; return why that is not possible, or None."""
        self.worst = worst
        return await self._take(worst.cost_usd)

    async def reserve_retry(self, failed: Call) -> bool:
        """Reserve one more call in place of `failed`, whose cost is lost; return whether it may be made."""
        before, other = self.worst, self.beside.worst if self.beside is not None else Spend()
        more = Spend(before.cost_usd + failed.cost_usd, calls=before.calls + 1)
        both = Spend(more.cost_usd + other.cost_usd, calls=more.calls + other.calls)
        if over_limit(self._limits, self._used._replace(seconds=0.0), both) is not None:
            return False
        self.worst = more  # before anything is awaited: other calls of the stage ask, too
        if self.beside is not None:
            used = self.beside._used
            self.beside._used = Spend(used.cost_usd + failed.cost_usd, used.seconds, used.calls + 1)
        return await self._take(failed.cost_usd) is None

    def settle(self, calls: Sequence[Call]) -> None:
        """Replace the reservations by what the calls cost, without waiting until that is stored."""
        paid = sum(call.cost_usd for call in calls)
        for hold in self._holds:
            if self._book is not None:
                self._book.settle(hold, paid)
            paid = 0.0
        self._holds = []

    async def _take(self, usd: float) -> BudgetShortfall | str | None:
        if self._book is None or not self._budgets or usd <= 0.0:
            return None
        limit = self._limits.seconds or 0.0
        future = self._book.reserve(self._budgets, usd, seconds=limit + _SPARE, run=self._run)
        try:
            answer = await asyncio.shield(asyncio.wrap_future(future))
        except TraceError as error:  # fails closed: what cannot be reserved is not spent
            return f"the budgets cannot be read: {error}"
        except asyncio.CancelledError:
            future.add_done_callback(self._give_back)
            raise
        if isinstance(answer, BudgetShortfall):
            return answer
        self._holds.append(answer)
        return None

    def _give_back(self, future: Future[Reservation | BudgetShortfall]) -> None:
        """Settle a reservation that came after its stage was cancelled."""
        hold = None if future.exception() is not None else future.result()
        if self._book is not None and hold is not None and not isinstance(hold, BudgetShortfall):
            self._book.settle(hold, 0.0)
