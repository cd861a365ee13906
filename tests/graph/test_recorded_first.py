"""Whatever happens after a model was called, the call is recorded and charged: faults at every point.

The faults are in `faulty_kinds`, in a process of its own, since its kinds have to be installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

TESTS = Path(__file__).parents[1]
POINTS = """[cascade.models]
faulty = faulty_kinds:FaultyModel
[cascade.confidence]
faulty = faulty_kinds:FaultyConfidence
[cascade.gates]
faulty = faulty_kinds:FaultyGate
"""


def run_faults(folder: Path, seed: int, runs: int) -> list[dict[str, object]]:
    info = folder / "faulty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    done = subprocess.run(
        [sys.executable, str(TESTS / "faulty_kinds.py"), str(seed), str(runs)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(TESTS)]), "OPENAI_API_KEY": "key"},
        capture_output=True, text=True, timeout=60 + 3 * runs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("seed", "runs"), [(1, 42), pytest.param(2, 700, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_recorded_is_charged_is_counted(tmp_path: Path, seed: int, runs: int) -> None:
    found = run_faults(tmp_path, seed, runs)
    assert sum(cast("int", each["counted"]) for each in found) > runs  # most of them did ask
    for each in found:
        calls = cast("list[tuple[float, str | None]]", each["recorded"])
        counted, cost = cast("int", each["counted"]), sum(cost for cost, _ in calls)
        cancelled = sum((error or "").startswith("cancelled") for _, error in calls)
        # Each call that the server saw, and no other; what was cancelled may not have got that far.
        assert len(calls) - cancelled <= counted <= len(calls), each
        assert each["new"] or not counted, each  # the run was stored, or refused before anything was called
        assert each["charged"] == pytest.approx(cost, abs=1e-11), each
        assert cost >= 14e-6 * counted - 1e-11, each  # the server's usage
