"""Whose request is answered next, where more are asked than can be answered at once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cascade.serve.openai.errors import ApiError


class Places:
    """Places for requests at work, and a queue before them that is fair to accounts.

    A free place goes to the account with the fewest requests at work, among equals to the one that waits
    longest for a turn. If the queue is full, a newcomer takes the room of the newest request of the account
    with the most waiting ones, unless its own account has as many. This is longest-queue drop with max-min
    fairness.

    Args:
        places: maximum number of requests at work.
        queue: maximum number of requests waiting.
    """

    def __init__(self, places: int, queue: int) -> None:
        self._free, self._room = places, queue
        self._waiting: dict[str | None, deque[asyncio.Future[None]]] = {}  # in the order of turns
        self._at_work: Counter[str | None] = Counter()

    @property
    def at_work(self) -> int:
        """The number of requests at work."""
        return self._at_work.total()

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def place(self, account: str | None) -> AsyncIterator[None]:
        """Hold a place while a request of `account` is being answered.

        Raises:
            ApiError: 429, too many wait already.
        """
        if self._free and not self._waiting:
            self._take(account)
        else:
            await self._turn(account)
        try:
            yield
        finally:
            self._at_work -= Counter([account])
            self._free += 1
            self._next()

    def _take(self, account: str | None) -> None:
        self._free -= 1
        self._at_work[account] += 1

    async def _turn(self, account: str | None) -> None:
        """Wait for a place, and take it."""
        if self.waiting >= self._room:
            self._make_room(account)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it got a place in the same moment
                self._at_work -= Counter([account])
                self._free += 1
                self._next()
            else:
                self._forget(account, turn)
            raise

    def _make_room(self, account: str | None) -> None:
        longest = max(self._waiting, key=lambda other: len(self._waiting[other]), default=account)
        own = len(self._waiting.get(account, ()))
        if longest == account or len(self._waiting[longest]) <= own + 1:
            raise self._busy()
        dropped = self._waiting[longest][-1]
        self._forget(longest, dropped)
        dropped.set_exception(self._busy())

    def _busy(self) -> ApiError:
        message = f"{self.at_work} requests are in flight and {self.waiting} waiting; try again"
        return ApiError(429, message, code="busy", retry_after=1.0)

    def _next(self) -> None:
        """Give free places to whose turn it is."""
        while self._waiting and self._free:
            account = min(self._waiting, key=lambda waiting: self._at_work[waiting])
            turns = self._waiting.pop(account)
            turn = turns.popleft()
            if turns:
                self._waiting[account] = turns  # at the end of the round
            if not turn.cancelled():
                self._take(account)
                turn.set_result(None)

    def _forget(self, account: str | None, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(account, deque())
        if turn in turns:
            turns.remove(turn)
        if not turns:
            self._waiting.pop(account, None)
