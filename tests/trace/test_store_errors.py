"""Failures below the trace store: each message names the location, the cause and the fix."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascade.errors import TraceError
from cascade.records import Request, Result, new_run_id
from cascade.trace import SCHEMA_VERSION, TraceStore


def result(size: int = 10, **fields: Any) -> Result:
    given: dict[str, Any] = {"run": new_run_id(), "graph": "g@1", "status": "abstained"}
    return Result(**(given | fields), request=Request(text=os.urandom(size).hex()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Use up what is left of `disk`; return the file that does."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return ballast


def write_many(store: TraceStore, stored: list[Result]) -> None:
    for _ in range(100):
        run = result(10_000)
        store.write(run)
        stored.append(run)


def read_all(store: TraceStore) -> list[Result]:
    return [store.get(row.run) for row in store.runs(limit=1000)]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "'' is no place; give a file's path"),
        ("sqlite://", "in memory and would keep nothing"),
        ("sqlite:///:memory:", "in memory and would keep nothing"),
        ("nosuch://db", "nosuch.*such as sqlite:///traces.db"),
        ("mysql://u:secret@h/db", r"mysql://u:\*\*\*@h/db: 'mysql' is not supported; give a file's path"),
        ("://", "such as sqlite:///traces.db"),
        ("postgresql+nodriver://u:secret@h/db", "such as sqlite:///traces.db"),
    ],
)
def test_an_invalid_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        TraceStore(url)


def test_a_missing_folder_is_named_with_its_fix(path: Path) -> None:
    with pytest.raises(TraceError, match=r"the folder .*/no/such does not exist; `mkdir -p"):
        TraceStore(str(path.parent / "no" / "such" / "runs.db"))


def test_a_file_that_is_not_a_database_is_refused_and_unchanged(path: Path) -> None:
    path.write_text("these are my notes\n" * 100)
    for create in (True, False):
        with pytest.raises(
            TraceError, match=r"runs\.db: it is not a SQLite database .*; move that file away"
        ):
            TraceStore(str(path), create=create)
    assert path.read_text() == "these are my notes\n" * 100


def test_a_folder_is_not_a_database(path: Path) -> None:
    path.mkdir()
    with pytest.raises(TraceError, match=r"runs\.db: it cannot be opened"):
        TraceStore(str(path))


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (distance REAL)")
    connection.close()
    with pytest.raises(TraceError, match="its table 'runs' is another program's; choose another --trace-db"):
        TraceStore(str(path))


def test_a_database_of_a_development_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (run TEXT)")
        connection.execute("CREATE TABLE schema_info (version INTEGER)")
    connection.close()
    for create in (True, False):
        with pytest.raises(TraceError, match=r"development version before 0\.1\.0; move that file away"):
            TraceStore(str(path), create=create)


def test_a_database_of_a_newer_cascade_is_refused(path: Path) -> None:
    TraceStore(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE cascade_schema SET version = 99")
    connection.close()
    for create in (True, False):
        with pytest.raises(
            TraceError, match=f"schema version 99; this cascade reads {SCHEMA_VERSION}; install the cascade"
        ):
            TraceStore(str(path), create=create)


def test_a_locked_database_is_reported_and_works_again_afterwards(path: Path) -> None:
    with TraceStore(f"sqlite:///{path}?timeout=0.1") as store:
        store.write(result(run="A"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TraceError, match=r"runs\.db: another process has locked it .*; end that process"):
            store.write(result())
        with pytest.raises(TraceError, match="another process has locked it"):
            TraceStore(f"sqlite:///{path}?timeout=0.1")
        assert [row.run for row in store.runs()] == ["A"]
        other.execute("ROLLBACK")
        other.close()
        store.write(result(run="B"))
        assert [row.run for row in store.runs()] == ["B", "A"]


def test_a_full_disk_loses_nothing_stored_and_works_again_with_space(small_disk: Path) -> None:
    with TraceStore(str(small_disk / "runs.db")) as store:
        stored: list[Result] = []
        with pytest.raises(TraceError, match=r"disk/runs\.db: the disk is full .*; free some space"):
            write_many(store, stored)
        assert stored
        assert all(store.get(run.run) == run for run in stored)
    with TraceStore(str(small_disk / "runs.db")) as store:
        assert len(store.runs(limit=1000)) == len(stored)


def test_writing_goes_on_when_a_full_disk_has_space_again(small_disk: Path) -> None:
    with TraceStore(str(small_disk / "runs.db")) as store:
        store.write(result(run="A"))
        ballast = fill(small_disk)
        with pytest.raises(TraceError, match="the disk is full"):
            store.write(result(50_000))
        assert store.get("A").run == "A"
        ballast.unlink()
        store.write(result(50_000, run="B"))
        assert [row.run for row in store.runs()] == ["B", "A"]


def test_a_database_that_may_not_grow_loses_nothing_stored(path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.write(result(run="A"))
        with store._engine.connect() as connection:  # type: ignore[union-attr]
            connection.exec_driver_sql("PRAGMA max_page_count = 1")  # SQLite raises it to the current size
        with pytest.raises(TraceError, match="the disk is full"):
            store.write(result(100_000))
        store.write(result(run="B"))  # the writer has a new connection, without that limit
        assert [row.run for row in store.runs()] == ["B", "A"]


def test_a_full_disk_at_the_start_is_an_error_too(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(TraceError, match=r"runs\.db: the disk (is full|failed)"):
        TraceStore(str(small_disk / "runs.db"))


def test_a_read_only_disk_can_be_read_and_not_written(small_disk: Path) -> None:
    database = small_disk / "runs.db"
    with TraceStore(str(database)) as store:
        store.write(result(run="A"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(TraceError, match=r"runs\.db: it cannot be opened .*; make sure that its folder"):
        TraceStore(str(database))
    with pytest.raises(TraceError, match=r"other\.db: it cannot be opened"):
        TraceStore(str(small_disk / "other.db"))
    with TraceStore(str(database), create=False) as store:
        assert store.get("A").run == "A"


def test_a_damaged_row_is_named(path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.write(result(run="A"))
        store.write(result(run="B"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET metadata = '{broken' WHERE run = 'A'")
        connection.execute("UPDATE runs SET status = 'surprised' WHERE run = 'B'")
    connection.close()
    with TraceStore(str(path), create=False) as store:
        for run in ("A", "B"):
            with pytest.raises(TraceError, match=rf"run '{run}' in .*runs\.db is damaged or from a newer"):
                store.get(run)


def test_a_damaged_file_is_reported(path: Path) -> None:
    with TraceStore(str(path)) as store:
        for _ in range(50):
            store.write(result(2000))
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"damaged"), TraceStore(str(path), create=False) as store:
        read_all(store)
