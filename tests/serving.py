"""Helper of the tests: `cascade ui` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start `cascade ui` and wait for the line with its address."""
    command = [sys.executable, "-m", "cascade.cli.main", "ui", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    assert process.stdout
    line = process.stdout.readline()
    try:
        assert " at http" in line, process.stderr and process.stderr.read()
        yield process, line.partition(" at ")[2].split()[0]
    finally:
        process.kill()
        process.communicate()
