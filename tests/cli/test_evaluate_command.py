"""`cascade evaluate`: a real policy file on a real table, printed, as JSON and as a page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from policies import certificate, policy, row, stage
from typer.testing import CliRunner, Result

from cascade.cli.evaluate import evaluate
from cascade.errors import CascadeError
from cascade.lab.tables.outcomes import read_outcomes, write_outcomes
from cascade.policy.artifact import write_policy


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "120"})


def write(folder: Path, rows: int = 150, **changes: Any) -> list[object]:
    """Write a table and a policy; return the options that name them."""
    draw = np.random.default_rng(0)
    table = [
        row(str(k), "ab"[k % 2], small=(int(draw.random() < 0.7), 0.001, float(draw.random())),
            big=(int(draw.random() < 0.9), 0.01, None))
        for k in range(rows)
    ]  # fmt: skip
    write_outcomes(table, folder / "test.jsonl")
    tuned = policy(stage("small", 0.5), stage("big"), certificates=[certificate("small", 0.02)])
    write_policy(tuned.model_copy(update=changes), folder / "policy.json")
    return ["--outcomes", folder / "test.jsonl", "--policy", folder / "policy.json"]


def test_the_json_carries_every_figure_of_the_contract(tmp_path: Path) -> None:
    done = run(*write(tmp_path), "--by", "topic", "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    names = ["accuracy", "mean_cost_usd", "mean_seconds", "coverage", "selective_risk", "strong_share"]
    for name in [*names, "apgr", "cpt50", "cpt80", "error_cost_area"]:
        assert isinstance(data[name], float), name
        assert len(data[f"{name}_ci"]) == 2
    assert {"models", "slices", "certificates"} <= data.keys()
    assert data["certificates"][0]["held"] is False


def test_the_text_shows_figures_models_slices_and_promises(tmp_path: Path) -> None:
    done = run(*write(tmp_path), "--by", "topic")
    assert done.exit_code == 0, done.output
    for words in ("small → big on 150 rows", "95% interval", "AUROC", "topic a", "DID NOT HOLD"):
        assert words in done.stdout


def test_the_report_is_one_page_of_its_own(tmp_path: Path) -> None:
    page = tmp_path / "deeper" / "out.html"
    done = run(*write(tmp_path), "--report", page)
    assert done.exit_code == 0, done.output
    assert page.read_text().startswith("<!doctype html>")
    assert "policy.json on test.jsonl" in page.read_text()


def test_a_table_that_the_policy_was_tuned_on_is_called_so(tmp_path: Path) -> None:
    write(tmp_path)
    sha256 = read_outcomes(tmp_path / "test.jsonl").sha256
    done = run(*write(tmp_path, data_sha256=sha256), "--json")
    assert "tuned on this very table" in done.stderr
    assert json.loads(done.stdout)["tuned_on_these_rows"] is True
    assert "tuned on" not in run(*write(tmp_path, data_sha256="0" * 64)).stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--by", "colour"], "no field 'colour'"),
        (["--policy", "none.json"], "policy file is missing"),
        (["--outcomes", "none.jsonl"], "none.jsonl: No such file"),
        (["--report", "/dev/null/x.html"], "give a writable file for --report"),
    ],
)
def test_what_cannot_be_done_is_said(options: list[str], expected: str, tmp_path: Path) -> None:
    done = run(*write(tmp_path), *options)
    assert isinstance(done.exception, CascadeError)
    assert expected in str(done.exception)
