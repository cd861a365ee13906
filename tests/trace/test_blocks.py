"""Blocks of columns: made with the runs, by an upgrade and by an import, and true after pruning."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from cascade.records import Request, Result
from cascade.trace import blocks, migrate
from cascade.trace import progress as trace_progress
from cascade.trace.archive import export_runs, import_runs
from cascade.trace.prune import prune
from cascade.trace.store import RunFilter, TraceStore
from cascade.trace.tables import SCHEMA_VERSION, metadata
from cascade.trace.verify import verify

SMALL = 8


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "SIZE", SMALL)


def fill(path: Path, first: int, last: int) -> None:
    with TraceStore(str(path)) as store:
        for index in range(first, last):
            store.write(
                Result(
                    run=f"R{index:03}",
                    graph=f"{'gh'[index % 2]}@{index // 10}",
                    status="accepted",
                    tier="opus" if index % 5 == 0 else "haiku",
                    confidence=None if index % 3 == 0 else index / 100,
                    started=f"2026-01-01T00:{index:02}:00.000+00:00",
                    request=Request(text="Where?"),
                )
            )


@pytest.fixture
def full(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    fill(path, 0, 30)
    return path


def held(path: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM blocks ORDER BY name, value, block").fetchall()


def found(path: Path, **where: Any) -> list[int]:
    with TraceStore(str(path), create=False) as store:
        return [int(row.run[1:]) for row in store.search(RunFilter(**where))]


def test_full_blocks_are_summed_up_and_the_newest_runs_are_in_none(full: Path) -> None:
    rows = held(full)
    assert {row[2] for row in rows} == {0, 1, 2}  # numbers 0 to 23; 24 to 30 wait
    assert {row[0] for row in rows} == {
        "started",
        "status",
        "tier",
        "graph",
        "digest",
        "confidence",
        "cost_usd",
    }
    opus = next(row[3] for row in rows if row[:3] == ("tier", "opus", 1))
    assert f"{opus[0]:08b}" == "00010000"  # run R010 has number 11
    times = next(row[3] for row in rows if row[:3] == ("started", "", 0))
    assert [time[14:16] for time in json.loads(times)] == ["00", "06"]
    assert found(full, tier="opus", confidence_min=0.1) == [25, 20, 10]


def test_every_run_is_found_while_blocks_fill(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    for index in range(0, 40, 5):
        fill(path, index, index + 5)
        assert found(path, status="accepted", tier="opus") == list(range(index, -1, -5))


def back_to_version_3(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE blocks")
        connection.execute(
            "CREATE INDEX ix_runs_filter ON runs "
            "(seq, status, rule, tier, graph, digest, confidence, cost_usd, started)"
        )
        connection.execute("UPDATE schema_info SET version = 3")


def ours(name: str | None, kind: str, parents: object) -> bool:
    return kind != "table" or not str(name).startswith("runs_fts")


def test_a_database_of_version_3_is_read_and_upgraded(full: Path) -> None:
    made = held(full)
    back_to_version_3(full)
    where = {"tier": "opus", "confidence_min": 0.1}
    assert found(full, **where) == [25, 20, 10]  # as it is: reading changes nothing
    TraceStore(str(full)).close()
    assert held(full) == made
    assert found(full, **where) == [25, 20, 10]
    assert verify(str(full)).count == 0
    engine = create_engine(f"sqlite:///{full}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_an_upgrade_of_many_runs_says_how_far_it_is(
    full: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    back_to_version_3(full)
    monkeypatch.setattr(migrate, "_MANY", 20)
    monkeypatch.setattr(trace_progress, "_EVERY", 0.0)
    with caplog.at_level(logging.WARNING):
        TraceStore(str(full)).close()
    lines = caplog.messages
    assert lines[0].startswith(
        f"trace database {full}: bringing 30 runs from version 3 to {SCHEMA_VERSION}; others cannot write"
    )
    assert lines[1:4] == [f"summing up the runs in blocks: {done} of 3" for done in (1, 2, 3)]
    assert lines[-1].startswith(f"trace database {full}: version {SCHEMA_VERSION} after ")


def test_an_import_is_found_the_same_way(full: Path, tmp_path: Path) -> None:
    export_runs(str(full), tmp_path / "runs.jsonl", RunFilter())
    import_runs(str(tmp_path / "copy.db"), tmp_path / "runs.jsonl")
    assert held(tmp_path / "copy.db") == held(full)


@pytest.fixture
def pruned(full: Path) -> Path:
    assert prune(str(full), RunFilter(until="2026-01-01T00:10"), note="a test").runs == 10
    return full


def test_blocks_forget_what_was_pruned(pruned: Path) -> None:
    rows = held(pruned)
    assert {row[0] for row in rows if row[2] == 0} == {"started", "confidence", "cost_usd"}
    assert ("started", "", 0, b"[]") in rows
    opus = next(row[3] for row in rows if row[:3] == ("tier", "opus", 1))
    assert f"{opus[0]:08b}" == "00010000"
    assert found(pruned, tier="opus", cost_max=0.0) == [25, 20, 15, 10]


def test_runs_are_found_after_all_were_pruned(full: Path) -> None:
    assert prune(str(full), RunFilter(), note="a test").runs == 30
    assert found(full, tier="opus", cost_max=0.0) == []
    fill(full, 30, 50)
    assert found(full, tier="opus", cost_max=0.0) == [45, 40, 35, 30]


def test_blocks_that_name_runs_that_are_gone_find_none_of_them(pruned: Path) -> None:
    """As after a pruning that was stopped before it had summed up the blocks anew."""
    fill(pruned.with_name("other.db"), 0, 30)
    before = held(pruned.with_name("other.db"))
    with contextlib.closing(sqlite3.connect(pruned)) as connection, connection:
        connection.execute("DELETE FROM blocks")
        connection.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?)", before)
    assert found(pruned, tier="opus", cost_max=0.0) == [25, 20, 15, 10]
    assert found(pruned, tier="opus", contains="where") == [25, 20, 15, 10]
