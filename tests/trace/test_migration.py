"""Databases of older cascades: read as they are, upgraded when they are written to.

`data/v1.sql` was written by the cascade of version 1: real runs, a run that waited, and grades.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from cascade.errors import TraceError
from cascade.records import Request, Result
from cascade.trace.history import history
from cascade.trace.migrate import SCRIPTS
from cascade.trace.store import RunFilter, TraceStore
from cascade.trace.tables import SCHEMA_VERSION, metadata

V1 = Path(__file__).parent / "data" / "v1.sql"
WAITED = "01V1WAITED"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(V1.read_text())
    return path


def query(path: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def everything(path: Path) -> tuple[list[Result], list[Any]]:
    with TraceStore(str(path), create=False) as store:
        rows = store.runs()
        return [store.get(row.run) for row in rows], [store.grades(row.run) for row in rows]


def test_an_old_database_is_read_as_it_is(old: Path) -> None:
    before = old.read_bytes()
    with TraceStore(str(old), create=False) as store:
        assert [(row.run[:4], row.status, row.correct) for row in store.runs()] == [
            ("01V1", "accepted", True),
            ("01M7", "accepted", False),
            ("01M7", "abstained", None),
            ("01M7", "abstained", None),
        ]
        waited = store.get(WAITED)
        assert waited.text == "yes, a person"
        assert waited.trace[0].calls[0].tokens[0].logprob == -math.inf
        assert waited.request.tool_choice == "auto"
        assert waited.trace[0].started == 0.0
        assert [grade.correct for grade in store.grades(store.runs()[1].run)] == [True, False]
        assert len(store.search(RunFilter(grade="none"))) == 2
        assert len(store.search(RunFilter(contains="ghent"))) == 1
        assert len(store.overview(RunFilter()).figures) == 4
    assert len(list(history(str(old), RunFilter()))) == 4
    assert old.read_bytes() == before


def test_an_old_database_without_grades_is_read_and_graded(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.execute("DROP TABLE grades")
    with TraceStore(str(old), create=False) as store:
        assert store.grades(WAITED) == ()
        assert store.search(RunFilter(grade="right")) == []
        store.grade(WAITED, True)  # opens the file for writing, and so upgrades it
        assert [grade.correct for grade in store.grades(WAITED)] == [True]
        assert [row.run for row in store.search(RunFilter(grade="right"))] == [WAITED]


def test_an_old_database_in_a_read_only_folder_is_read(old: Path) -> None:
    old.parent.chmod(0o500)
    try:
        assert len(everything(old)[0]) == 4
    finally:
        old.parent.chmod(0o700)


def test_writing_upgrades_an_old_database_without_loss(old: Path) -> None:
    before = everything(old)
    with TraceStore(str(old)) as store:
        store.write(Result(run="NEW", graph="g", status="abstained", request=Request(text="x")))
    runs, grades = everything(old)
    assert (runs[1:], grades[1:]) == before
    assert runs[0].run == "NEW"
    assert query(old, "SELECT version FROM schema_info") == [(SCHEMA_VERSION,)]
    assert query(old, "SELECT kind, count(*) FROM ledger GROUP BY kind ORDER BY kind") == [
        ("grade", 3),
        ("run", 5),
    ]


def ours(name: str | None, kind: str, parents: object) -> bool:
    """The full-text index is of tables, too; SQLite keeps them."""
    return kind != "table" or not str(name).startswith("runs_fts")


def test_an_upgraded_database_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    TraceStore(str(old)).close()
    TraceStore(str(tmp_path / "new.db")).close()
    for path in (old, tmp_path / "new.db"):
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_server_default": True, "include_name": ours}
            )
            assert compare_metadata(context, metadata) == []
        engine.dispose()


def test_there_is_a_step_for_each_version() -> None:
    scripts = ScriptDirectory(str(SCRIPTS))
    assert [step.revision for step in scripts.walk_revisions()] == [
        str(version) for version in range(SCHEMA_VERSION, 0, -1)
    ]


OPEN = "import sys; from cascade.trace.store import TraceStore; TraceStore(sys.argv[1]).close()"


def test_several_processes_upgrade_the_same_file(old: Path) -> None:
    before = everything(old)
    processes = [subprocess.Popen([sys.executable, "-c", OPEN, str(old)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert everything(old) == before
    assert query(old, "SELECT count(*) FROM ledger") == [(7,)]


def test_an_upgrade_that_fails_leaves_the_old_database_as_it_was(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE TABLE ledger (mine TEXT)")  # in the way of the upgrade's last part
    before = everything(old)
    with pytest.raises(TraceError, match=r"old\.db: table ledger already exists"):
        TraceStore(str(old))
    assert everything(old) == before
    assert query(old, "SELECT version FROM schema_info") == [(1,)]


@pytest.mark.parametrize("version", [0, -1, SCHEMA_VERSION + 1, "two"])
def test_a_version_that_no_cascade_wrote_is_refused(version: object, old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("UPDATE schema_info SET version = ?", (version,))
    for create in (True, False):
        with pytest.raises(
            TraceError, match=f"schema version {version}; this cascade reads {SCHEMA_VERSION}"
        ):
            TraceStore(str(old), create=create)


def test_reading_and_opening_an_up_to_date_database_loads_no_alembic(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    TraceStore(str(path)).close()
    code = f"{OPEN}; TraceStore(sys.argv[1], create=False).runs(); assert 'alembic' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0
