"""Traces are their owner's alone: the database, what SQLite puts beside it, and exports."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from runs_maker import run
from scripting import checked, scripted, write

from cascade import Cascade
from cascade.trace import RunFilter, TraceStore, export_runs

PERSON = {"kind": "human"}


@pytest.fixture(autouse=True)
def anyone_may_read_new_files() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.iterdir() if path.name.startswith(("runs", "export")))
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files}


def test_every_file_of_a_store_at_work_is_private(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"small": scripted("no", confidence=0.1), "clerk": PERSON},
        [checked("first", "small"), {"name": "desk", "ask": ["clerk"]}],
        budgets={"day_usd": 1.0},
    )
    with Cascade.load(path, trace_db=str(tmp_path / "runs.db")) as cascade:
        cascade.resume(cascade.invoke("hello").run, "yes")
        found = modes(tmp_path)
    assert {"runs.db", "runs.db-wal", "runs.db-shm"} <= found.keys()
    assert set(found.values()) == {"0o600"}, found


def test_files_of_before_are_made_private_and_stay_readable(tmp_path: Path) -> None:
    with TraceStore(str(tmp_path / "runs.db")) as store:
        store.write(run("01AA"))
        for path in tmp_path.iterdir():
            path.chmod(0o644)
        with TraceStore(str(tmp_path / "runs.db"), create=False) as reader:  # reading changes nothing
            assert reader.get("01AA").run == "01AA"
        assert set(modes(tmp_path).values()) == {"0o644"}
        with TraceStore(str(tmp_path / "runs.db")) as writer:
            writer.write(run("01BB"))
            assert set(modes(tmp_path).values()) == {"0o600"}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_an_export_is_private_from_its_first_byte(tmp_path: Path, kind: str) -> None:
    with TraceStore(str(tmp_path / "runs.db")) as store:
        store.write(run("01AA"))
    export_runs(str(tmp_path / "runs.db"), tmp_path / f"export.{kind}", RunFilter())
    assert modes(tmp_path)[f"export.{kind}"] == "0o600"


def test_the_default_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade.trace.database.default_path", lambda: tmp_path / "data" / "runs.db")
    TraceStore(str(tmp_path / "data" / "runs.db")).close()
    assert oct(stat.S_IMODE((tmp_path / "data").stat().st_mode)) == "0o700"
