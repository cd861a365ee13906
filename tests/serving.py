"""Helper of the tests: `cascade ui` and `cascade serve` in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


@contextmanager
def serving(graph: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`cascade serve` in a process of its own, and its base URL."""
    database = str(graph.parent / "traces.db")
    command = [sys.executable, "-m", "cascade.cli.main", "serve", str(graph), "--port", "0",
               "--trace-db", database, *options]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    line = process.stdout.readline()
    try:
        assert " at http" in line, process.stderr and process.stderr.read()
        yield process, line.partition(" at ")[2].split()[0].removesuffix("/v1")
    finally:
        process.kill()
        process.communicate()
