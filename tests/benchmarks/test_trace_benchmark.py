"""The trace benchmark runs phase by phase, in a folder that keeps what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def measured(root: Path, folder: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "benchmarks/trace.py", "--folder", str(folder), "--json", "--runs", "300"]
    done = subprocess.run([*command, *options], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    phases: dict[str, Any] = json.loads(done.stdout)["phases"]
    return phases


@pytest.mark.slow
def test_phases_are_measured_once_or_again_on_demand(root: Path, tmp_path: Path) -> None:
    filled = measured(root, tmp_path, "--only", "fill")
    assert list(filled) == ["fill"]
    every = measured(root, tmp_path)
    assert list(every) == ["fill", "write", "ask", "ask-plain", "verify"]
    assert every["fill"] == filled["fill"]
    assert every["verify"]["figures"]["problems"] == 0
    asked, plainly = every["ask"]["figures"], every["ask-plain"]["figures"]
    assert set(plainly) < set(asked)
    assert all(0 < figures["p50"] <= figures["p95"] <= figures["max"] for figures in asked.values())
    again = measured(root, tmp_path, "--only", "ask")
    assert {name for name in every if again[name] != every[name]} == {"ask"}
    command = [sys.executable, "benchmarks/trace.py", "--folder", str(tmp_path), "--runs", "20"]
    other = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (other.returncode, "has 300 runs; expected 20" in other.stderr) == (1, True)
