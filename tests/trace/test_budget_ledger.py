"""Budgets are covered by `verify`, and amounts beyond what a database counts are bounded and recorded."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.policy.budget import Budget
from cascade.records import BudgetShortfall
from cascade.trace import BudgetBook, Reservation, TraceStore, verify

DAY, SCOPE = "2026-11-21", "graph:g"
MOST = (2**63 - 1) / 1e12  # dollars
KEY = b"0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with three settled reservations and an open one, of two scopes."""
    path = tmp_path / "traces.db"
    book = BudgetBook(str(path))
    both = [Budget(SCOPE, 10.0), Budget("account:a", 5.0)]
    for usd in (0.1, 0.2, 0.3):
        held = book.reserve(both, 1.0).result()
        assert isinstance(held, Reservation)
        book.settle(held, usd).result()
    book.reserve(both, 0.5).result()
    book.close()
    return path


def edit(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


def problems(path: Path, key: bytes | None = None) -> tuple[str, ...]:
    return verify(str(path), key=key).problems


def test_budgets_that_nobody_touched_are_in_order(path: Path) -> None:
    checked = verify(str(path))
    assert (checked.count, checked.budgets > 4) == (0, True)
    book = BudgetBook(str(path))
    book.reset(SCOPE).result()
    book.close()
    assert problems(path) == ()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "UPDATE budget_days SET spent = 0 WHERE scope = 'graph:g'",
            "what graph:g has spent on .* was edited: ",
        ),
        ("UPDATE budget_days SET spent = spent + 1", "was edited"),
        ("DELETE FROM budget_days WHERE scope = 'account:a'", "what account:a has spent on"),
        ("INSERT INTO budget_days VALUES ('2026-01-01', 'graph:other', 5)", "what graph:other has spent on"),
        ("UPDATE budget_days SET day = '2020-01-01'", "was edited"),
        ("UPDATE budget_days SET spent = 'much'", "was edited"),
        ("DELETE FROM budget_reservations", "has reserved on .* was edited"),
        ("UPDATE budget_reservations SET amount = 1", "has reserved on"),
        ("UPDATE budget_ledger SET spent = 1 WHERE seq = 3", r"entry 3 of the budgets .* does not follow"),
        (
            "DELETE FROM budget_ledger WHERE seq = 2",
            r"entry 3 of the budgets .* does not follow from entry 1",
        ),
        ("DELETE FROM budget_ledger WHERE seq > 4", "was edited"),
        ("UPDATE budget_ledger SET link = 'x' WHERE seq = 4", "entry 4 of the budgets"),
    ],
)
def test_an_edited_budget_is_found(path: Path, statement: str, says: str) -> None:
    edit(path, statement)
    found = "\n".join(problems(path))
    assert re.search(says, found), found


def test_a_chain_made_anew_has_no_signature(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_TRACE_KEY", KEY.decode())
    book = BudgetBook(str(path))
    book.reset(SCOPE).result()
    book.close()
    with TraceStore(str(path)):
        pass
    told = [each for each in problems(path, KEY) if "budgets" in each]
    assert told == []
    edit(path, "UPDATE budget_ledger SET sign = NULL WHERE seq = (SELECT max(seq) FROM budget_ledger)")
    monkeypatch.delenv("CASCADE_TRACE_KEY")
    book = BudgetBook(str(path))
    book.reset("account:a").result()
    book.close()
    edit(path, "UPDATE budget_ledger SET sign = x'00' WHERE seq = (SELECT max(seq) FROM budget_ledger)")
    assert any("the signature of entry" in each and "budgets" in each for each in problems(path, KEY))


def test_a_database_of_before_is_taken_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE budget_ledger")
    connection.close()
    assert (problems(path), verify(str(path)).budgets) == ((), 0)
    BudgetBook(str(path)).close()
    assert (problems(path), verify(str(path)).budgets) == ((), 2)
    edit(path, "UPDATE budget_days SET spent = 0")
    assert len(problems(path)) == 2


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BudgetBook]:
    made = BudgetBook(str(tmp_path_factory.mktemp("budgets") / "traces.db"))
    yield made
    made.close()


@settings(max_examples=60, deadline=None)
@given(
    usd=st.floats() | st.floats(MOST * 0.99, MOST * 1.01), budget=st.floats(0.01, 1e300), twice=st.booleans()
)
def test_no_amount_is_dropped_and_none_breaks_the_book(
    book: BudgetBook, usd: float, budget: float, twice: bool
) -> None:
    budgets = [Budget(SCOPE, budget)]
    book.reset(SCOPE).result()
    held = book.reserve(budgets, 0.01).result()
    if not isinstance(held, Reservation):
        return
    book.settle(held, usd).result()
    (balance,) = (each for each in book.balances() if each.scope == SCOPE)
    expected = max(0.0, usd) if usd <= MOST else MOST
    assert balance.spent == pytest.approx(expected, rel=1e-9, abs=1.1e-12)
    if usd == usd and usd < MOST / 2:
        return
    again = book.reserve(budgets, 1.0 if not twice else usd).result()
    if not usd < MOST or twice:
        assert isinstance(again, BudgetShortfall)
