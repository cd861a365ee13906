"""Places at work and the queue before them are fair to accounts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cascade.serve.openai.errors import ApiError
from cascade.serve.openai.places import Places


class Asker:
    """Requests that hold their place until they are told to end."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.started: list[str] = []  # accounts in the order of service
        self.refused: Counter[str] = Counter()
        self.ends: list[tuple[str, asyncio.Event]] = []  # of those at work
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, account: str) -> None:
        self.tasks.append(asyncio.create_task(self._ask(account)))
        await asyncio.sleep(0)

    async def _ask(self, account: str) -> None:
        end = asyncio.Event()
        try:
            async with self.places.place(account):
                self.started.append(account)
                self.ends.append((account, end))
                await end.wait()
        except ApiError as error:
            if (error.status, error.code) == (429, "busy"):
                self.refused[account] += 1
        finally:
            self.ends = [pair for pair in self.ends if pair[1] is not end]

    async def end(self, index: int = 0) -> None:
        self.ends[index][1].set()
        await settled()


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@asynccontextmanager
async def asking(places: int, queue: int) -> AsyncIterator[Asker]:
    asker = Asker(Places(places, queue))
    yield asker
    for task in asker.tasks:
        task.cancel()
    await asyncio.gather(*asker.tasks, return_exceptions=True)
    assert (asker.places.at_work, asker.places.waiting) == (0, 0)
    async with asker.places.place("anybody"):
        assert asker.places.at_work == 1


async def test_an_account_that_fills_the_queue_does_not_keep_another_one_out() -> None:
    async with asking(2, 8) as asker:
        for _ in range(12):
            await asker.ask("greedy")
        assert (asker.places.at_work, asker.places.waiting, asker.refused["greedy"]) == (2, 8, 2)
        await asker.ask("modest")
        await settled()
        assert asker.refused == {"greedy": 3}  # its newest made room
        await asker.end()
        assert asker.started[2:] == ["modest"]


async def test_accounts_share_the_places_and_the_queue_evenly() -> None:
    async with asking(3, 9) as asker:
        for account in ["a"] * 12 + ["b"] * 12 + ["c"] * 12:
            await asker.ask(account)
        await settled()
        for _ in range(9):
            await asker.end()
        assert Counter(asker.started[3:]) == {"a": 3, "b": 3, "c": 3}
        assert asker.refused == {"a": 6, "b": 9, "c": 9}


async def test_one_account_alone_is_first_come_first_served() -> None:
    async with asking(1, 3) as asker:
        for _ in range(6):
            await asker.ask("only")
        await settled()
        assert asker.refused["only"] == 2
        waiting = asker.tasks[1:4]
        for served in waiting:
            await asker.end()
            assert [task.done() for task in waiting] == [
                task in waiting[: waiting.index(served)] for task in waiting
            ]


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_comes_goes_or_is_cancelled_the_counts_hold(seed: int) -> None:
    draw = random.Random(seed)
    places, queue = draw.randrange(1, 5), draw.randrange(6)
    async with asking(places, queue) as asker:
        for _ in range(200):
            action = draw.random()
            if action < 0.5:
                await asker.ask(draw.choice("aaaabbc"))
            elif action < 0.8 and asker.ends:
                before, waiting = len(asker.started), dict(asker.places._waiting)
                at_work = Counter(account for account, _ in asker.ends)
                index = draw.randrange(len(asker.ends))
                at_work[asker.ends[index][0]] -= 1
                await asker.end(index)
                if waiting:  # the next is one of those with the fewest at work
                    served = asker.started[before]
                    assert at_work[served] == min(at_work[str(account)] for account in waiting)
            elif asker.tasks:
                draw.choice(asker.tasks).cancel()
            await settled()
            assert asker.places.at_work <= places
            assert asker.places.waiting <= queue
            assert asker.places.waiting == 0 or asker.places.at_work == places
