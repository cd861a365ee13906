"""No text of a stranger steers the terminal: not in a table, a sentence, an error, or JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from runs_maker import run, step
from scripting import scripted, write
from typer.testing import CliRunner

from cascade.cli.main import app
from cascade.policy.budget import Budget
from cascade.records import Call, Request
from cascade.trace import BudgetBook, TraceStore

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
HOSTILE = f"a\x1b]0;owned\x07\x1b[2J\x9b31m\u2028b\u2029{BIDI}\x7f\x00\x85\r\x08z"


def steering(text: str) -> set[str]:
    """What in `text` steers; of categories, so that it does not rest on the list under test."""
    kinds = {char for char in text if unicodedata.category(char) in ("Cc", "Zl", "Zp")}
    return (kinds - set("\n\t")) | (set(text) & set(BIDI))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose every text is hostile."""
    path = tmp_path_factory.mktemp("hostile") / "runs.db"
    call = Call(
        model=HOSTILE,
        tier=HOSTILE,
        text=HOSTILE,
        error=HOSTILE,
        labels={HOSTILE: 0.5},
        meta={HOSTILE: HOSTILE},
    )
    shown = step(HOSTILE, "no_draft", call)
    hostile = {"graph": f"g{HOSTILE}@{HOSTILE}", "stage": HOSTILE, "model": HOSTILE, "tier": HOSTILE}
    with TraceStore(str(path)) as store:
        asked = Request(text=HOSTILE, metadata={HOSTILE: HOSTILE})
        store.write(run("01AA", request=asked, text=HOSTILE, trace=(shown,), **hostile))
        waits = {"status": "waiting", "text": None, "question": HOSTILE}
        store.write(run("01BB", request=asked, trace=(), **hostile, **waits))
        store.grade("01AA", True, by=HOSTILE, note=HOSTILE)
    book = BudgetBook(str(path))
    book.reserve([Budget(f"account:{HOSTILE}", 1.0)], 0.1).result()
    book.close()
    return path


COMMANDS = [
    ("trace", "list"), ("trace", "list", "--json"), ("trace", "show", "01AA"), ("trace", "show", "01AA",
    "--json"), ("trace", "explain", "01AA"), ("trace", "explain", "01AA", "--json"), ("trace", "explain",
    "01BB"), ("trace", "show", "01BB"), ("trace", "verify"), ("trace", "verify", "--json"), ("budget",
    "show"), ("budget", "show", "--json"), ("trace", "show", HOSTILE.replace("\0", "")), ("trace", "list",
    "--since", HOSTILE.replace("\0", "")), ("grade", "01AA", "right"), ("resume", "01BB", "x"), ("resume",
    HOSTILE.replace("\0", ""), "x"), ("trace", "import", "no\x1b[31m.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:40].encode().hex()[:60])
def test_no_command_hands_on_what_steers(command: tuple[str, ...], database: Path) -> None:
    done = CliRunner().invoke(app, [*command, "--trace-db", str(database)], env={"COLUMNS": "240"})
    assert not steering(done.output), done.output.encode()
    if "--json" in command:
        json.loads(done.stdout)


def test_json_is_the_same_json(database: Path) -> None:
    done = CliRunner().invoke(app, ["trace", "show", "01AA", "--json", "--trace-db", str(database)])
    told = json.loads(done.stdout)
    assert (told["text"], told["request"]["text"]) == (HOSTILE, HOSTILE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "{graph}"],
        ["check", "{graph}", "--json"],
        ["run", "{graph}", "x\x1b[31m", "--json"],
        ["x\x9b"],
    ],
)
def test_errors_and_check_of_a_hostile_graph_file(arguments: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, {"a": scripted("\x1b[31m\u202e")}, [{"name": "s", "ask": ["a"]}])
    if arguments[0] == "check":
        path.write_text(path.read_text() + '\n"k\\u009b31m\\u202e\\u2028\\e[2J": 1\n')
    command = [each.format(graph=path) for each in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "cascade.cli.main", *command], capture_output=True, timeout=120,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    for output in (done.stdout.decode(), done.stderr.decode()):
        assert not steering(output), output.encode()
