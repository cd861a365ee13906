"""`cascade plan`: text, JSON, the page, and the file of assumptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cascade.cli.plan import plan
from cascade.errors import RequestError

app = typer.Typer()
app.command()(plan)

TEXT = (
    "requests_a_day: 100000\ntokens_in: 500\ntokens_out: 0\ntiers: {opus: {input_usd: 20, output_usd: 0}}\n"
)


def said(*arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "160"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_text_json_and_page(tmp_path: Path) -> None:
    path, page = tmp_path / "plan.yaml", tmp_path / "plan.html"
    path.write_text(TEXT)
    text = said("--assumptions", path, "--report", page)
    assert text.startswith("Build. An expert pays for itself within the 365 days")
    assert "$365,000" in text
    assert f"report  {page}" in text
    assert page.read_text().startswith("<!doctype html>")
    data = json.loads(said("--assumptions", path, "--json"))
    assert data["options"][0] | {"median_seconds": 0} == {
        "name": "opus alone", "role": "strongest", "once_usd": 0.0, "day_usd": 1000.0, "year_usd": 365000.0,
        "year_usd_ci": None, "first_year_usd": 365000.0, "first_year_usd_ci": None, "median_seconds": 0,
        "p95_seconds": 1.5, "seconds_from": "assumed", "leaves_the_machine": 1.0,
        "answered": None,
    }  # fmt: skip
    assert data["break_even_day"] == 6
    assert len(data["sensitivity"]) == 5


def test_the_file_of_assumptions_is_written_and_used(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    assert f"cascade plan --assumptions {path}" in said("--write-assumptions", path)
    assert said("--assumptions", path).startswith("Buy. An expert does not pay")


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="give a writable file for --report"):
        said("--report", tmp_path)
