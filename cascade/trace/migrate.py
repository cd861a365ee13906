"""Bringing the tables of an older cascade up to date.

The version of a database is in its table `schema_info`, which every cascade knows; Alembic does the rest.
The steps are in `migrations/versions`, one for each version.
"""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, update

from cascade.trace.tables import SCHEMA_VERSION, schema_info

SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, version: int, to: int = SCHEMA_VERSION) -> None:
    """Bring tables of `version` up to date, in the transaction that `connection` is in."""
    scripts = ScriptDirectory(str(SCRIPTS))
    steps = list(scripts.iterate_revisions(str(to), str(version)))
    with Operations.context(MigrationContext.configure(connection)):
        for step in reversed(steps):
            step.module.upgrade()
    connection.execute(update(schema_info).values(version=to))
