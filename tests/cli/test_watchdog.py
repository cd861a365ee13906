"""No command hangs, whatever becomes of its standard streams: every command, with every state of each stream.

The commands are those of the typer app, so that a new one is covered; its required arguments must be known
below.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cascade.cli.main import app

FORKED = Path(__file__).with_name("forked_commands.py")

# What an argument is given, by its name; files are those of `folder`.
ARGUMENTS: dict[str, list[str]] = {
    "graph": ["graph.yaml"],
    "graphs": ["graph.yaml"],
    "text": ["hello"],
    "run": ["last"],
    "answer": ["yes"],
    "stage": ["first"],
    "verdict": ["right"],
    "name": ["support"],
    "folder": ["made"],
    "model": ["bundled:encoder"],
    "target": ["graph.yaml"],
    "with_": ["n"],
    "scope": ["graph:watched"],
    "file": ["file.new"],
    "data": ["rows.jsonl"],
    "out": ["out.new"],
    "outcomes": ["outcomes.jsonl"],
    "policy": ["policy.json"],
    "older_than": ["1d"],
    "to": ["n"],
}
# What a command is given besides; every list is one more way to call it.
MORE: dict[str, list[list[str]]] = {
    "run": [
        ["graph.yaml", *more]
        for more in (["--input", "rows.jsonl"], ["--input", "-"], ["hello", "--watch"], ["hello", "--json"])
    ],
    "resume": [["WAITING", "yes"]],
    "calibrate": [["graph.yaml", "first", "--data", "-"]],
    "outcomes": [["graph.yaml", "--data", "rows.jsonl", "--out", "out.new"]],
    "tune": [["--outcomes", "outcomes.jsonl", "--out", "out.new", "--lambda", "1"]],
    "keys list": [["--file", "keys.json"]],
    "keys remove": [["support", "--file", "keys.json"]],
    "trace import": [["runs.jsonl"]],
    "ui": [["--port", "0", "--no-open"]],
    "serve": [["graph.yaml", "--port", "0"]],
}
ONLY_MORE = {"run", "ui", "serve", "tune", "outcomes"}

INPUTS = ["open", "closed", "broken", "slow"]
OUTPUTS = ["open", "closed", "broken", "head", "slow"]
ERRORS = ["open", "closed", "broken", "slow", "same"]
Streams = tuple[str, str, str]
# A few that differ in all three, one for each call; the slow test has the full product.
FEW: list[Streams] = [("closed", "closed", "open"), ("broken", "broken", "broken"), ("slow", "head", "same")]

GRAPH = """
name: watched
models:
  m: {kind: scripted, default: billing, confidence: 0.9, labels: [billing, shipping], replies: {b: shipping}}
  n: {kind: scripted, default: shipping, confidence: 0.9, labels: [billing, shipping]}
stages:
  - {name: first, ask: [m], confidence: {by: labels}, accept: 0.95, shadow: {model: n, share: 1.0}}
  - {name: second, ask: [n], confidence: {by: labels}, accept: 0.6}
"""
HUMAN = """
name: asked
models: {person: {kind: human}}
stages: [{name: only, ask: [person]}]
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command of the app with its name, such as `trace list`."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*path, name))
        if not getattr(command, "commands", None):
            yield " ".join(path), command

    return walk(typer.main.get_command(app), ())


def calls(name: str, command: Any) -> Iterator[list[str]]:
    """Yield the arguments of `command`: what it requires, and the more interesting ways to call it."""
    yield from ([*name.split(), *more] for more in MORE.get(name, []))
    if name in ONLY_MORE:
        return
    given = name.split()
    for parameter in command.params:
        argument = parameter.param_type_name == "argument"
        if not argument and not parameter.required:
            continue
        assert parameter.name in ARGUMENTS, f"{name}: say what to give for {parameter.name!r} in ARGUMENTS"
        given += [*([] if argument else parameter.opts[:1]), *ARGUMENTS[parameter.name]]
    yield given


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands read."""
    place = tmp_path_factory.mktemp("watched")
    (place / "graph.yaml").write_text(GRAPH)
    (place / "human.yaml").write_text(HUMAN)
    labels = ("billing", "shipping")
    rows = [{"text": "ab"[n % 2], "label": labels[n % 3 == 0]} for n in range(40)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runner, before = CliRunner(), Path.cwd()
    os.chdir(place)
    try:
        for command in (
            "outcomes graph.yaml --data rows.jsonl --out outcomes.jsonl",
            "tune --outcomes outcomes.jsonl --out policy.json --lambda 1",
            "keys add support --file keys.json",
            "run human.yaml hello --trace-db traces.db --json",
            "run graph.yaml --input rows.jsonl --trace-db traces.db",
            "trace export runs.jsonl --trace-db traces.db",
        ):
            done = runner.invoke(app, command.split())
            assert not done.exit_code or " human" in command, f"{command}: {done.output}"
            if " human" in command:
                (place / "waiting").write_text(json.loads(done.stdout.splitlines()[0])["run"])
    finally:
        os.chdir(before)
    return place


def watch(folder: Path, each: Callable[[int], list[Streams]], tmp_path: Path) -> None:
    """Run the n-th call with the streams `each(n)`, and say which do not end as they should."""
    waiting = (folder / "waiting").read_text()
    every = [call for name, command in commands() for call in calls(name, command)]
    cases = [
        {
            "argv": [waiting if word == "WAITING" else word for word in call],
            "folder": str(folder),
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
        }
        for number, call in enumerate(every)
        for stdin, stdout, stderr in each(number)
    ]
    todo = tmp_path / "cases.jsonl"
    todo.write_text("".join(json.dumps(case) + "\n" for case in cases))
    done = subprocess.run(
        [sys.executable, str(FORKED), str(todo)],
        env=os.environ | {"CASCADE_TRACE_DB": "traces.db"},
        capture_output=True,
        text=True,
        timeout=60 + 10 * len(cases),
    )
    assert done.returncode == 0, done.stderr
    wrong = []
    for case, line in zip(cases, done.stdout.splitlines(), strict=True):
        outcome = json.loads(line)
        status, errors = outcome["status"], outcome["errors"]
        # 120 is the interpreter's, when it cannot flush; 2 a usage error: nothing was tried.
        bad = status is None or (status < 0 and not outcome["stopped"]) or status in (2, 120)
        if bad or "Traceback" in errors or "Exception ignored" in errors:
            wrong.append(f"{case} ended with {outcome}")
    assert not wrong, "\n".join(wrong)


def test_every_command_ends_with_odd_streams(folder: Path, tmp_path: Path) -> None:
    watch(folder, lambda number: [FEW[number % len(FEW)]], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stdin", INPUTS)
def test_every_command_ends_with_every_mixture_of_streams(folder: Path, tmp_path: Path, stdin: str) -> None:
    watch(folder, lambda _: [(stdin, out, err) for out, err in product(OUTPUTS, ERRORS)], tmp_path)
