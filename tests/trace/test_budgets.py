"""Budgets cannot be overspent: by one caller, many threads, many processes, or processes that die."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cascade.errors import TraceError
from cascade.explain import describe_fact
from cascade.policy.budget import Budget
from cascade.records import BudgetShortfall
from cascade.trace import BudgetBook, Reservation

GRAPH, ACCOUNT = Budget("graph:g", 1.0), Budget("account:a", 0.5)
SPENDER = Path(__file__).with_name("spender.py")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> Iterator[BudgetBook]:
    made = BudgetBook(str(tmp_path / "traces.db"), clock)
    yield made
    made.close()


def held(book: BudgetBook, usd: float, *budgets: Budget, seconds: float = 60.0) -> Reservation:
    reservation = book.reserve(budgets or [GRAPH, ACCOUNT], usd, seconds=seconds).result()
    assert isinstance(reservation, Reservation), reservation
    return reservation


def refused(book: BudgetBook, usd: float, *budgets: Budget) -> str:
    reason = book.reserve(budgets or [GRAPH, ACCOUNT], usd).result()
    assert isinstance(reason, BudgetShortfall)
    return describe_fact(reason)


def figures(book: BudgetBook, day: str | None = None) -> dict[str, tuple[float, float, float]]:
    return {b.scope: (b.spent, b.held, b.abandoned) for b in book.balances(day)}


def test_reserved_money_is_unavailable_until_it_is_settled(book: BudgetBook) -> None:
    first = held(book, 0.3)
    reason = refused(book, 0.3)
    assert reason == (
        "worst case $0.300000, $0.200000 left of $0.500000 for account:a on 2026-11-21 ($0.300000 reserved)"
    )
    assert figures(book) == {"graph:g": (0.0, 0.3, 0.0), "account:a": (0.0, 0.3, 0.0)}
    book.settle(first, 0.1).result()
    assert figures(book) == {"graph:g": (0.1, 0.0, 0.0), "account:a": (0.1, 0.0, 0.0)}
    held(book, 0.4)
    assert "$0.000000 left" in refused(book, 1e-12)


def test_a_refusal_takes_nothing_out_of_any_budget(book: BudgetBook) -> None:
    refused(book, 0.6)
    assert figures(book)["graph:g"] == (0.0, 0.0, 0.0)


def test_a_reservation_is_settled_once(book: BudgetBook) -> None:
    reservation = held(book, 0.2)
    for _ in range(3):
        book.settle(reservation, 0.2).result()
    assert figures(book)["graph:g"] == (0.2, 0.0, 0.0)


def test_each_day_has_its_own_budget_and_the_day_of_the_reservation_pays(
    book: BudgetBook, clock: Clock
) -> None:
    late = held(book, 0.5)
    clock.now += timedelta(hours=2)
    held(book, 0.5)
    book.settle(late, 0.25).result()
    assert figures(book, "2026-11-21")["graph:g"] == (0.25, 0.0, 0.0)
    assert figures(book)["graph:g"] == (0.0, 0.5, 0.0)


def test_an_account_is_one_over_all_graphs(book: BudgetBook) -> None:
    held(book, 0.3, Budget("graph:one", 1.0), ACCOUNT)
    assert "account:a" in refused(book, 0.3, Budget("graph:two", 1.0), ACCOUNT)


def test_an_abandoned_reservation_counts_as_spent_until_it_is_reset(book: BudgetBook, clock: Clock) -> None:
    held(book, 0.3, seconds=60)
    alive = held(book, 0.1, seconds=600)
    clock.now += timedelta(seconds=61)
    assert figures(book)["account:a"] == (0.0, 0.4, 0.3)
    refused(book, 0.2)
    book.reset("account:a").result()
    assert figures(book) == {"graph:g": (0.0, 0.4, 0.3), "account:a": (0.0, 0.1, 0.0)}
    book.settle(alive, 0.1).result()
    assert figures(book)["account:a"] == (0.1, 0.0, 0.0)


def test_sums_of_many_small_amounts_are_exact(tmp_path: Path) -> None:
    book = BudgetBook(str(tmp_path / "traces.db"))
    budget = Budget("graph:g", 0.00003)
    reservations = [book.reserve([budget], 1e-7) for _ in range(301)]
    made = [reservation for future in reservations if isinstance(reservation := future.result(), Reservation)]
    assert len(made) == 300
    for future in [book.settle(reservation, 1e-7) for reservation in made]:
        future.result()
    assert book.balances()[0].spent == 0.00003
    book.close()


def test_many_threads_never_overspend(book: BudgetBook) -> None:
    def spend(seed: int) -> float:
        draw, paid = random.Random(seed), 0.0
        for _ in range(10):
            worst = draw.choice([0.01, 0.02, 0.05])
            reservation = book.reserve([GRAPH], worst).result()
            if isinstance(reservation, Reservation):
                real = worst * draw.choice([0, 0.5, 1])
                book.settle(reservation, real).result()
                paid += real
        return paid

    with ThreadPoolExecutor(64) as pool:
        total = sum(pool.map(spend, range(64)))
    spent, left, _ = figures(book)["graph:g"]
    assert (spent, left) == (pytest.approx(total), 0.0)
    assert 0.9 < spent <= 1.0


def test_processes_share_a_budget_and_never_overspend_it(tmp_path: Path) -> None:
    url = str(tmp_path / "traces.db")
    command = [sys.executable, str(SPENDER), url, "0.5"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    spent = sum(int(process.communicate(timeout=60)[0]) for process in running)
    assert [process.returncode for process in running] == [0, 0, 0]
    book = BudgetBook(url)
    assert figures(book) == dict.fromkeys(("account:a", "graph:g"), (spent / 1000, 0.0, 0.0))
    book.close()
    assert 490 < spent <= 500


def test_the_reservation_of_a_process_that_died_stays(tmp_path: Path) -> None:
    url = str(tmp_path / "traces.db")
    died = subprocess.run([sys.executable, str(SPENDER), url, "0.015", "die"], timeout=60)
    assert died.returncode == 9
    book = BudgetBook(url)
    assert figures(book)["graph:g"] == (0.0, 0.01, 0.0)
    assert "reserved" in refused(book, 0.01, Budget("graph:g", 0.015))
    book.close()


def test_a_database_that_fails_is_an_error_and_not_an_approval(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    book = BudgetBook(str(path))
    for file in tmp_path.glob("traces.db*"):
        file.unlink()
    path.mkdir()
    book._engine.dispose()
    with pytest.raises(TraceError, match="cannot be opened"):
        book.reserve([GRAPH], 0.1).result()
    book.close()


class Machine(RuleBasedStateMachine):
    """Reservations of several callers in any order, over several days; the sums kept beside."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.book = BudgetBook(f"{self.folder.name}/traces.db", self.clock)
        self.open: list[tuple[Reservation, float]] = []
        self.spent: dict[tuple[str, str], float] = {}

    def teardown(self) -> None:
        self.book.close()
        self.folder.cleanup()

    @rule(usd=st.floats(0, 0.6), both=st.booleans())
    def reserve(self, usd: float, both: bool) -> None:
        budgets = [GRAPH, ACCOUNT] if both else [GRAPH]
        reservation = self.book.reserve(budgets, usd).result()
        day = self.clock.now.date().isoformat()
        used = {
            b.scope: self.spent.get((day, b.scope), 0.0)
            + sum(amount for other, amount in self.open if other.day == day and b.scope in other.scopes)
            for b in budgets
        }
        over = [b for b in budgets if used[b.scope] + usd > b.day_usd + 1e-9]
        under = all(used[b.scope] + usd < b.day_usd - 1e-9 for b in budgets)
        if isinstance(reservation, Reservation):
            assert not over
            self.open.append((reservation, usd))
        else:
            assert not under

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.floats(0, 1), twice=st.booleans())
    def settle(self, data: st.DataObject, share: float, twice: bool) -> None:
        reservation, worst = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        for _ in range(1 + twice):
            self.book.settle(reservation, worst * share).result()
        for scope in reservation.scopes:
            self.spent[reservation.day, scope] = self.spent.get((reservation.day, scope), 0.0) + worst * share

    @rule(hours=st.integers(1, 20))
    def wait(self, hours: int) -> None:
        self.clock.now += timedelta(hours=hours)

    @invariant()
    def no_day_is_overspent_and_the_sums_are_right(self) -> None:
        for budget in (GRAPH, ACCOUNT):
            for (day, scope), spent in self.spent.items():
                if scope == budget.scope:
                    balance = next(b for b in self.book.balances(day) if b.scope == scope)
                    assert balance.spent == pytest.approx(spent, abs=1e-9)
                    assert balance.spent + balance.held <= budget.day_usd + 1e-12


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
