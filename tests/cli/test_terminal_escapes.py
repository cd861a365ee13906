"""Nothing that a user, a file or a model wrote steers the terminal that it is shown in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from scripting import scripted, write

from cascade.explain.formatting import json_text, printable

STEERING = [
    char
    for char in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") and char not in "\t\n\r"
]
# One of each way to steer: escape sequences of 7 and 8 bits, directions, line ends, what is not shown.
NASTY = "a\x1b[31m\x9b2J\x07\x7f\u202e\u2066\u2028\u2029\u200b\ufeff\U000e0041b"


def steers(text: str) -> set[str]:
    return set(text) & set(STEERING)


def test_json_loses_nothing_and_steers_nothing() -> None:
    for start in range(0, sys.maxunicode, 4096):
        chars = [chr(code) for code in range(start, start + 4096) if not 0xD800 <= code <= 0xDFFF]
        value = {"".join(chars): [1, None]}
        text = json_text(value)
        assert json.loads(text) == value
        assert not steers(text), hex(start)
    alone = json_text(["\ud800", "\udc00"])
    assert (alone.encode(), json.loads(alone)) == (b'["\\ud800", "\\udc00"]', ["\ud800", "\udc00"])


def test_printed_text_keeps_lines_and_words() -> None:
    assert printable(f"one\n\ttwo {NASTY} drei é 中 😀") == f"one\n\ttwo a·[31m·2J{'·' * 9}b drei é 中 😀"
    assert not steers(printable("".join(STEERING)))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["check", "bad.yaml"], 1),
        (["check", "bad.yaml", "--json"], 1),
        (["run", "graph.yaml", f"Is {NASTY}?", "--json"], 0),
        (["trace", "list", "--json"], 0),
        (["trace", "explain", "last"], 0),
        (["budget", "show"], 0),
        (["run", f"{NASTY}.yaml", "x"], 1),
        (["keys", "remove", NASTY, "--file", "keys.json"], 1),
        (["resume", NASTY, "x"], 1),
    ],
)
def test_no_command_lets_what_it_shows_steer(stored: Path, command: list[str], code: int) -> None:
    environment = os.environ | {"CASCADE_TRACE_DB": str(stored / "t.db"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "cascade.cli.main", *command],
        cwd=stored, env=environment, capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stdout + done.stderr
    assert not steers(done.stdout + done.stderr)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, a store whose runs and accounts are nasty, and a graph file that is wrong."""
    from cascade import Cascade

    folder = tmp_path_factory.mktemp("nasty")
    models = {"m": scripted(f"Yes {NASTY}", price={"input": 1.0, "output": 1.0})}
    write(folder, models, [{"name": "only", "ask": ["m"]}], budgets={"day_usd": 1})
    wrong = json.dumps({"name": NASTY, NASTY: 1, "models": {NASTY: {"kind": NASTY}}})
    (folder / "bad.yaml").write_text(wrong)
    with Cascade.load(
        folder / "graph.yaml", trace_db=str(folder / "t.db"), granted=lambda account: 1.0
    ) as cascade:
        assert cascade.invoke(f"Is it {NASTY}?", account=NASTY).text
    return folder
