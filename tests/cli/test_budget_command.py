"""`cascade budget` shows what a day has cost, and forgets it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cascade.cli.main import app
from cascade.errors import RequestError
from cascade.policy.budget import Budget
from cascade.trace import BudgetBook, Reservation, default_url

RUNNER = CliRunner()


@pytest.fixture
def spent() -> None:
    book = BudgetBook(default_url())
    budgets = [Budget("graph:support", 1.0), Budget("account:acme", 1.0)]
    for usd, seconds in ((0.25, 60), (0.125, 60), (0.5, -60)):  # settled, at work, abandoned
        hold = book.reserve(budgets, usd, seconds=seconds).result()
        if usd == 0.25:
            assert isinstance(hold, Reservation)
            book.settle(hold, usd).result()
    book.close()


@pytest.mark.usefixtures("spent")
def test_show_and_reset() -> None:
    rows = RUNNER.invoke(app, ["budget", "show"]).stdout.splitlines()
    assert rows[1].split() == ["account:acme", "0.250000", "0.625000", "0.500000"]
    assert rows[2].split() == ["graph:support", "0.250000", "0.625000", "0.500000"]
    assert RUNNER.invoke(app, ["budget", "reset", "account:acme"]).exit_code == 0
    body = json.loads(RUNNER.invoke(app, ["budget", "show", "--json"]).stdout)
    assert [(row["scope"], row["spent"], row["held"], row["abandoned"]) for row in body] == [
        ("account:acme", 0.0, 0.125, 0.0),
        ("graph:support", 0.25, 0.625, 0.5),
    ]
    assert json.loads(RUNNER.invoke(app, ["budget", "show", "--day", "2020-01-01", "--json"]).stdout) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reset", "acme"], "expected graph:NAME or account:NAME"),
        (["show", "--day", "yesterday"], "expected one like 2026-11-21"),
    ],
)
def test_what_is_no_scope_or_day_is_refused(arguments: list[str], message: str) -> None:
    result = RUNNER.invoke(app, ["budget", *arguments])
    assert isinstance(result.exception, RequestError)
    assert message in str(result.exception)
