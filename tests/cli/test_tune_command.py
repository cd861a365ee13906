"""`cascade tune` writes a policy that evaluation can read, refuses with status 3, and names wrong options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripting import scripted, write

from cascade.lab.tables.outcomes import write_outcomes
from cascade.policy.artifact import read_policy

ROWS = 400


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A cheap model that is right where it is sure, and a dear one that is nearly always right."""
    rows = [
        {
            "id": str(row),
            "prompt": f"question {row % 7}",
            "models": {
                "small": {
                    "correct": int(row % 4 > 0),
                    "cost_usd": 0.001,
                    "confidence": 0.95 if row % 4 else 0.3,
                },
                "large": {"correct": int(row % 50 > 0), "cost_usd": 0.1},
            },
        }
        for row in range(ROWS)
    ]
    path = tmp_path / "table.jsonl"
    write_outcomes(rows, path)
    return path


def cascade(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cascade.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_promise_is_certified_and_written(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    done = cascade(
        "tune", "--outcomes", table, "--max-risk", "0.05", "--delta", "0.1", "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["chain"] == ["small", "large"]
    assert report["certificates"][0]["bound"] <= 0.05
    assert report["answered"]["small"] == pytest.approx(0.75)
    policy = read_policy(out)
    assert policy.chain == ("small", "large")
    assert len(policy.data_sha256) == 64


def test_what_the_rows_cannot_support_is_refused_with_status_3(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    done = cascade("tune", "--outcomes", table, "--max-risk", "0.001", "--out", out)
    assert done.returncode == 3
    assert "refused" in done.stdout
    assert "400 rows" in done.stdout
    assert not out.exists()


def test_text_names_stages_certificate_and_file(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    done = cascade("tune", "--outcomes", table, "--chain", "small,large", "--max-loss", "0.05", "--out", out)
    assert done.returncode == 0, done.stderr
    for part in ("small: accepts at score", "certificate: policy, max_loss 0.05", f"written: {out}"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "exactly one goal"),
        (["--max-risk", "0.1", "--budget", "1"], "exactly one goal"),
        (["--max-risk", "1.5"], "between 0 and 1"),
        (["--budget", "-1"], "at least 0"),
        (["--max-loss", "0.1", "--delta", "0"], "--delta is 0"),
        (["--budget", "1", "--abstention-price", "0.5"], "together with --lambda"),
        (["--lambda", "1", "--chain", "small,opus"], "unknown model 'opus'"),
        (["--lambda", "nan"], "expected"),
    ],
)
def test_wrong_options_are_named(options: list[str], problem: str, table: Path, tmp_path: Path) -> None:
    done = cascade("tune", "--outcomes", table, "--out", tmp_path / "p.json", *options)
    assert done.returncode == 1
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_a_policy_remembers_what_its_models_were(table: Path, tmp_path: Path) -> None:
    models = {"small": scripted("a"), "large": scripted("b")}
    stages = [
        {"name": "first", "ask": ["small"], "confidence": {"by": "logprob"}},
        {"name": "last", "ask": ["large"]},
    ]
    path, out = write(tmp_path, models, stages, policy="policy.json"), tmp_path / "policy.json"
    done = cascade("tune", "--outcomes", table, "--lambda", "5", "--out", out, "--graph", path)
    assert done.returncode == 0, done.stderr
    assert set(read_policy(out).setups) == set(read_policy(out).chain)
    assert cascade("check", path).returncode == 0
    write(tmp_path, {**models, "small": scripted("c")}, stages, policy="policy.json")
    stale = cascade("check", path)
    assert stale.returncode == 1
    assert "is stale: tuned for model 'small'" in stale.stderr
