"""Revisions make the tables that a new database has, and upgrade older ones when they are written to."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine

from cascade.errors import TraceError
from cascade.records import Request, Result
from cascade.trace import SCHEMA_VERSION, TraceStore, database, migrations
from cascade.trace._tables import metadata

ADD_COLUMN = """
from alembic import op
from sqlalchemy import Column, Text
revision, down_revision = "2", "1"
def upgrade():
    op.add_column("runs", Column("mood", Text))
"""
OPEN = "import sys; from cascade.trace._store import TraceStore; TraceStore(sys.argv[1]).close()"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with TraceStore(str(path)) as store:
        store.write(Result(run="A", graph="g", status="abstained", request=Request(text="x")))
    return path


def query(path: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def differences(engine: Engine) -> Any:
    """Return how the tables differ from `cascade.trace._tables`; SQLite's full-text index is tables, too."""

    def ours(name: str | None, kind: str, parents: object) -> bool:
        return kind != "table" or not str(name).startswith("runs_fts")

    with engine.connect() as connection:
        options = {"compare_server_default": True, "include_name": ours}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def test_the_revisions_make_the_tables_of_a_new_database(path: Path, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'revisions.db'}")
    with engine.begin() as connection:
        migrations.upgrade(connection)
    assert differences(engine) == []
    engine.dispose()
    assert differences(create_engine(f"sqlite:///{path}")) == []
    objects = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY name"
    assert query(tmp_path / "revisions.db", objects) == query(path, objects)
    versions = "SELECT version FROM cascade_schema"
    assert query(tmp_path / "revisions.db", versions) == query(path, versions) == [(SCHEMA_VERSION,)]


def test_there_is_a_revision_for_each_version() -> None:
    scripts = ScriptDirectory(str(migrations.SCRIPTS))
    assert [step.revision for step in scripts.walk_revisions()] == [
        str(version) for version in range(SCHEMA_VERSION, 0, -1)
    ]


@pytest.fixture
def next_version(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cascade after the one that made `path`: one more revision adds a column; return its file."""
    scripts = tmp_path / "migrations"
    shutil.copytree(migrations.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    revision = scripts / "versions" / "v2.py"
    revision.write_text(ADD_COLUMN)
    monkeypatch.setattr(migrations, "SCRIPTS", scripts)
    monkeypatch.setattr(database, "SCHEMA_VERSION", 2)
    return revision


@pytest.mark.usefixtures("next_version")
def test_writing_upgrades_an_older_database_and_reading_says_how(path: Path) -> None:
    with pytest.raises(TraceError, match=r"schema version 1; this cascade reads 2; `cascade trace upgrade`"):
        TraceStore(str(path), create=False).runs()
    with TraceStore(str(path)) as store:
        assert [row.run for row in store.runs()] == ["A"]
    assert query(path, "SELECT version FROM cascade_schema") == [(2,)]
    assert query(path, "SELECT run, mood FROM runs") == [("A", None)]


def test_an_upgrade_that_fails_leaves_the_old_database_as_it_was(path: Path, next_version: Path) -> None:
    next_version.write_text(ADD_COLUMN + '    op.execute("SELECT nonsense")\n')
    before = query(path, "SELECT * FROM runs")
    with pytest.raises(TraceError, match=r"runs\.db: no such column: nonsense"):
        TraceStore(str(path))
    assert query(path, "SELECT * FROM runs") == before
    assert query(path, "SELECT version FROM cascade_schema") == [(1,)]


@pytest.mark.parametrize("version", [0, -1, SCHEMA_VERSION + 1, "two"])
def test_a_version_that_no_cascade_wrote_is_refused(version: object, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE cascade_schema SET version = ?", (version,))
    for create in (True, False):
        with pytest.raises(
            TraceError, match=f"schema version {version}; this cascade reads {SCHEMA_VERSION}"
        ):
            TraceStore(str(path), create=create)


def test_reading_and_opening_an_up_to_date_database_loads_no_alembic(path: Path) -> None:
    code = f"{OPEN}; TraceStore(sys.argv[1], create=False).runs(); assert 'alembic' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0
