"""The grammar benchmark runs, and both ways choose the same tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_both_ways_choose_the_same_tokens(root: Path) -> None:
    command = [sys.executable, "benchmarks/grammar.py", "--quick", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    rows = found["results"]
    assert {row["rows"] for row in rows} == {"fitting", "near", "far"}
    assert all(row["equal"] == row["tokens"] > 10 for row in rows)
    taken = {name: by["here"] for name, by in found["validity"].items() if by["here"] is not None}
    assert {"object", "recursion", "oneOf, by tag of referred schemas"} <= taken.keys()
    assert all(ended == valid for _, ended, valid in taken.values())
