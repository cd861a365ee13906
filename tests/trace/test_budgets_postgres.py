"""Budgets and waiting runs on a real PostgreSQL server, as in the tests of SQLite."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from postgres import Server
from scripting import checked, scripted, write

from cascade import Cascade
from cascade.policy.budget import Budget
from cascade.trace import BudgetBook, Reservation

SPENDER = Path(__file__).with_name("spender.py")


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.database()


def test_threads_of_several_books_never_overspend(url: str) -> None:
    books = [BudgetBook(url) for _ in range(4)]
    budget = Budget("graph:g", 0.5)

    def spend(number: int) -> int:
        book, paid = books[number % 4], 0
        for _ in range(8):
            reservation = book.reserve([budget], 0.01).result()
            if isinstance(reservation, Reservation):
                book.settle(reservation, 0.005).result()
                paid += 5
        return paid

    with ThreadPoolExecutor(16) as pool:
        paid = sum(pool.map(spend, range(16)))
    (balance,) = books[0].balances()
    for book in books:
        book.close()
    assert (balance.spent, balance.held) == (paid / 1000, 0.0)
    assert 0.4 < balance.spent <= 0.5


@pytest.mark.slow
def test_processes_share_a_budget_and_never_overspend_it(url: str) -> None:
    command = [sys.executable, str(SPENDER), url, "0.5"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    spent = sum(int(process.communicate(timeout=60)[0]) for process in running)
    book = BudgetBook(url)
    balances = {balance.scope: (balance.spent, balance.held) for balance in book.balances()}
    book.close()
    assert balances == dict.fromkeys(("account:a", "graph:g"), (spent / 1000, 0.0))
    assert 490 < spent <= 500


def test_a_run_waits_in_the_database_and_another_cascade_resumes_it(url: str, tmp_path: Path) -> None:
    models = {"small": scripted("no", confidence=0.1), "person": {"kind": "human"}}
    path = write(tmp_path, models, [checked("first", "small"), {"name": "last", "ask": ["person"]}])
    with Cascade.load(path, trace_db=url) as cascade:
        waiting = cascade.invoke("hello")
    with Cascade.load(path, trace_db=url) as cascade:
        done = cascade.resume(waiting.run, "forty-two")
    assert (waiting.status, done.status, done.text) == ("waiting", "accepted", "forty-two")
