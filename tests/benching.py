"""Helper of the tests: run a benchmark as a command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def benchmark(root: Path, data: Path, name: str, *options: str) -> dict[str, Any]:
    """The JSON object that a benchmark prints."""
    command = [sys.executable, f"benchmarks/{name}.py", "--data", str(data), "--json", *options]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
