"""Helper of the tests: a Python process in which some packages are not installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_HIDE = """
import sys
from importlib.machinery import PathFinder
_find, _hidden = PathFinder.find_spec, set({names!r})
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in _hidden else _find(name, *rest)
"""
# All that extras bring and the base does not need.
EXTRAS = (
    "fastapi", "gguf", "huggingface_hub", "jinja2", "llama_cpp", "numpy", "prometheus_client", "psycopg",
    "pyarrow", "scipy", "sklearn", "starlette", "uvicorn",
)  # fmt: skip


def python_without(
    packages: Sequence[str], code: str, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run `code` in `folder` in a process that cannot import any of `packages`."""
    command = [sys.executable, "-c", _HIDE.format(names=list(packages)) + code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def cascade_without(
    packages: Sequence[str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in such a process."""
    return python_without(packages, "from cascade.cli.main import main\nmain()\n", folder, *arguments)
