"""`cascade run` and `resume` end with a status that tells how the run ended, and say what was in the way."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from scripting import REMOTE, checked, scripted, write
from typer.testing import CliRunner

from cascade.cli.main import app

DEAD = {
    "kind": "openai",
    "model": "m",
    "url": "http://127.0.0.1:9/v1",
    "key_env": None,
    "local": True,
    "max_retries": 0,
}
NO_KEY = {"kind": "openai", "model": "m", "price": {"input": 1.0, "output": 1.0}}
NO_URL = {"kind": "openai", "model": "m", "url_env": "A_URL", "key_env": None, "local": True}
PERSON = {"kind": "human"}
SURE, UNSURE = scripted("yes"), scripted("yes", confidence=0.1)
FAILS = scripted(None)  # it has no answer to anything

# What a stage comes to: its model, whether it is checked, and its share in the run's ending.
STAGES: dict[str, tuple[dict[str, Any], str]] = {
    "sure": (SURE, "answered"),
    "unsure": (UNSURE, "draft"),
    "dead": (DEAD, "broken"),
    "no key": (NO_KEY, "broken"),
    "no url": (NO_URL, "broken"),
    "fails": (FAILS, "broken"),
    "person": (PERSON, "waiting"),
}


def expected(kinds: list[str]) -> int:
    """Return the status of a run through such stages."""
    for kind in kinds:
        if kind in ("answered", "waiting"):
            return 0 if kind == "answered" else 4
    return 3 if "draft" in kinds else 5


def run(path: Path, *args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["run", str(path), *args])
    return done.exit_code, done.stdout, done.stderr


def graph(folder: Path, names: tuple[str, ...]) -> Path:
    models = {f"m{number}": STAGES[name][0] for number, name in enumerate(names)}
    stages = [
        {"name": f"s{number}", "ask": [f"m{number}"]}
        if STAGES[name][0] is PERSON
        else checked(f"s{number}", f"m{number}")
        for number, name in enumerate(names)
    ]
    return write(folder, models, stages)


PAIRS = [*itertools.permutations(STAGES, 1), *itertools.permutations(STAGES, 2)]
TRIED = [names for names in PAIRS if "person" not in names[:-1]]


@pytest.mark.parametrize("names", TRIED, ids=" ".join)
def test_the_exit_status_tells_how_the_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setenv("A_URL", "nonsense")
    status, out, err = run(graph(tmp_path, names), "hello", "--json")
    assert status == expected([STAGES[name][1] for name in names]), (out, err)
    row = json.loads(out.splitlines()[0])
    assert (row["status"] == "accepted") == (status == 0)
    reached = names[: next((i + 1 for i, n in enumerate(names) if n in ("sure", "person")), len(names))]
    if status in (3, 5):
        said = {"dead": "cannot be reached", "no key": "set it", "no url": "no http(s) URL"}
        assert [words in err for words in said.values()] == [name in reached for name in said], err


def test_the_request_that_may_not_leave_abstains(tmp_path: Path) -> None:
    path = write(tmp_path, {"m": scripted("yes", **REMOTE)}, [checked("only", "m")])
    status, _, err = run(path, "hello", "--local-only")
    assert status == 3
    assert "local only" in err


@pytest.mark.parametrize("name", list(STAGES))
def test_a_batch_that_was_run_ends_with_0_whatever_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("A_URL", "nonsense")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert run(graph(tmp_path, (name,)), "--input", str(rows))[0] == 0


def test_an_error_is_1_and_a_wrong_call_2(tmp_path: Path) -> None:
    import subprocess
    import sys

    def cascade(*args: str) -> int:
        command = [sys.executable, "-m", "cascade.cli.main", *args]
        return subprocess.run(command, capture_output=True, timeout=60).returncode

    assert cascade("run", str(tmp_path / "none.yaml"), "hello") == 1
    assert cascade("run") == 2


def test_resuming_ends_with_the_status_of_its_run(tmp_path: Path) -> None:
    path = graph(tmp_path, ("person",))
    waiting = json.loads(run(path, "who?", "--json")[1].splitlines()[0])["run"]
    done = CliRunner().invoke(app, ["resume", waiting, "me"])
    assert done.exit_code == 0, done.output


def test_the_statuses_are_documented_and_in_the_help(root: Path) -> None:
    help_text = " ".join(CliRunner().invoke(app, ["run", "--help"]).stdout.split())
    page = (root / "docs" / "deployment.md").read_text()
    for status, word in ((0, "answered"), (3, "abstained"), (4, "waiting"), (5, "failed")):
        assert f"{status} {word}" in help_text.replace("│ ", "")
        assert f"| {status} | {word}" in page
