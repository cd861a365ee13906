"""Runs many commands with odd standard streams, each in a fork of one process that has imported everything.

A command of its own would spend a second on imports. Usage: `forked_commands.py CASES`, a file of JSON lines
with argv, folder, stdin, stdout, stderr. Prints a JSON line for each: its status as `subprocess` gives it
(null: it had to be killed), seconds, whether it is a server that was stopped by SIGTERM, and its errors: what
it wrote to an open stderr.
"""

from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

AT_ONCE = 3
SLOW = 0.4  # seconds that a slow pipe is left alone
STOP_SERVERS = 3.0  # seconds after which `serve` and `ui` get the signal that ends them
PATIENCE = 40.0  # seconds until a command hangs
SERVERS = ("serve", "ui")
# What the commands import, and starts no thread.
PRELOADED = (
    "fastapi langgraph.graph langgraph.pregel numpy rich.progress scipy.stats sqlalchemy uvicorn "
    "cascade.cli.main cascade.graph.compile cascade.lab.tuning cascade.serve.server cascade.trace"
)


class Streams:
    """The three streams of one command, and what reads and writes their other ends."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._helpers: list[subprocess.Popen[bytes]] = []
        self.stdin = self._input(case["stdin"])
        self.stdout = self._output(case["stdout"], os.open(os.devnull, os.O_WRONLY))
        same = case["stderr"] == "same"
        self.stderr = self.stdout if same else self._output(case["stderr"], os.dup(self.errors.fileno()))

    def _input(self, state: str) -> int | None:
        if state == "open":
            return os.open(os.devnull, os.O_RDONLY)
        if state == "closed":
            return None
        reader, writer = os.pipe()
        if state == "slow":
            self._helper(f"sleep {SLOW}", stdout=writer)
        os.close(writer)
        return reader

    def _output(self, state: str, opened: int) -> int | None:
        if state == "open":
            return opened
        os.close(opened)
        if state == "closed":
            return None
        reader, writer = os.pipe()
        if state == "slow":
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
            self._helper(f"sleep {SLOW}; exec cat", stdin=reader)
        elif state == "head":
            self._helper("exec head -1", stdin=reader)
        os.close(reader)
        return writer

    def _helper(self, script: str, **streams: int) -> None:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | streams
        self._helpers.append(subprocess.Popen(["sh", "-c", script], **streams))  # type: ignore[call-overload]

    def install(self) -> None:
        """Make them this process's, as the interpreter does when it starts."""
        for fd, source in enumerate((self.stdin, self.stdout, self.stderr)):
            os.close(fd) if source is None else os.dup2(source, fd)
        os.closerange(3, 256)
        sys.stdin, sys.stdout, sys.stderr = (stream(fd) for fd in range(3))
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr

    def release(self) -> None:
        for fd in {self.stdin, self.stdout, self.stderr} - {None}:
            os.close(fd)

    def end(self) -> str:
        for helper in self._helpers:
            helper.wait()
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")


def stream(fd: int) -> Any:
    try:
        os.fstat(fd)
    except OSError:
        return None
    raw: Any = io.FileIO(fd, "r" if fd == 0 else "w", closefd=False)
    buffer = io.BufferedReader(raw) if fd == 0 else io.BufferedWriter(raw)
    errors = "backslashreplace" if fd == 2 else "strict"
    return io.TextIOWrapper(buffer, encoding="utf-8", errors=errors, line_buffering=fd == 2)


class Command:
    """A command in a fork. In the fork itself, `pid` is 0."""

    def __init__(self, number: int, case: dict[str, Any]) -> None:
        self.number, self.case = number, case
        self.folder = Path(tempfile.mkdtemp())
        shutil.copytree(case["folder"], self.folder / "work")
        self.streams, self.began, self.stopped = Streams(case), time.monotonic(), False
        self.pid = os.fork()
        if not self.pid:
            os.chdir(self.folder / "work")
            self.streams.install()
            sys.argv = ["cascade", *case["argv"]]
        else:
            self.streams.release()

    def outcome(self) -> dict[str, Any] | None:
        """Return how it ended; None while it works."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        seconds = time.monotonic() - self.began
        server = self.case["argv"][0] in SERVERS
        if not pid and server and not self.stopped and seconds > STOP_SERVERS:
            os.kill(self.pid, signal.SIGTERM)
            self.stopped = True
        if not pid and seconds < PATIENCE:
            return None
        if not pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        shutil.rmtree(self.folder)
        exit_status = os.waitstatus_to_exitcode(status) if pid else None
        errors = self.streams.end()
        return {"status": exit_status, "seconds": seconds, "stopped": self.stopped, "errors": errors}


def serve(cases: list[dict[str, Any]]) -> bool:
    """Run all cases and print their outcomes; return True in the fork that is to run a command."""
    todo, working, outcomes = list(enumerate(cases)), [], {}  # type: ignore[var-annotated]
    while todo or working:
        while todo and len(working) < AT_ONCE:
            command = Command(*todo.pop(0))
            if not command.pid:
                return True
            working.append(command)
        time.sleep(0.005)
        for command in working.copy():
            outcome = command.outcome()
            if outcome is not None:
                working.remove(command)
                outcomes[command.number] = outcome
    for number in range(len(cases)):
        print(json.dumps(outcomes[number]))
    return False


if __name__ == "__main__":
    for module in PRELOADED.split():
        import_module(module)
    gc.freeze()  # nothing of it is collected, in no fork
    if serve([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]):
        from cascade.cli.main import main

        main()
