"""Helper of the tests: a real PostgreSQL server, from Debian's package, on a socket in its own folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest


class Server:
    """A running server; `database()` makes an empty database and returns its URL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count(1)

    def database(self) -> str:
        import psycopg

        name = f"test{next(self._numbers)}"
        with psycopg.connect(host=str(self.folder), user="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"


@contextmanager
def server() -> Iterator[Server]:
    """Run a server; skip the test where that cannot be done."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="cascade-pg-"))
    process = None
    try:
        _run(
            programs[-1] / "initdb",
            folder,
            "-D",
            folder / "data",
            "-A",
            "trust",
            "-U",
            "postgres",
            "-N",
            "-E",
            "UTF8",
        )
        options = ["-k", folder, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40"]
        command = _as_user([programs[-1] / "postgres", "-D", folder / "data", *options], folder)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        _wait(folder)
        yield Server(folder)
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: Path, folder: Path, *arguments: object) -> None:
    done = subprocess.run(_as_user([program, *arguments], folder), capture_output=True, text=True, cwd=folder)
    if done.returncode:
        pytest.skip(f"{program.name} does not work here: {done.stderr[-300:]}")


def _as_user(command: list[object], folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root."""
    plain = [str(part) for part in command]
    if os.geteuid() != 0:
        return plain
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL refuses root, and there is no user postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *plain]


def _wait(folder: Path) -> None:
    import psycopg

    for _ in range(300):
        try:
            psycopg.connect(host=str(folder), user="postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    pytest.skip("the PostgreSQL server did not start within 30 s")
