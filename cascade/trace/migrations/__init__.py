"""Upgrades an older database with Alembic.

The table `cascade_schema` holds the version of a database; each version is a revision in `versions`. New
databases are made from `cascade.trace._tables`; a test compares them with what the revisions make.
"""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, update

from cascade.trace._tables import schema_info

SCRIPTS = Path(__file__).parent


def upgrade(connection: Connection, version: int | None = None) -> None:
    """Run all revisions after `version` (default: all) in the transaction that `connection` is in."""
    scripts = ScriptDirectory(str(SCRIPTS))
    revisions = list(scripts.iterate_revisions("heads", "base" if version is None else str(version)))
    with Operations.context(MigrationContext.configure(connection)):
        for revision in reversed(revisions):
            revision.module.upgrade()
    if revisions:
        connection.execute(update(schema_info).values(version=int(revisions[0].revision)))
