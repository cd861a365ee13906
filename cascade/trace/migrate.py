"""Bringing the tables of an older cascade up to date.

The version of a database is in its table `schema_info`, which every cascade knows; Alembic does the rest.
The steps are in `migrations/versions`, one for each version.
"""

from __future__ import annotations

import time
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, update

from cascade.trace.progress import say
from cascade.trace.tables import SCHEMA_VERSION, runs, schema_info

SCRIPTS = Path(__file__).parent / "migrations"
_MANY = 5000  # runs whose upgrade may take long enough for someone to wonder


def upgrade(connection: Connection, version: int, place: str, to: int = SCHEMA_VERSION) -> None:
    """Bring tables of `version` up to date, in the transaction that `connection` is in.

    Args:
        connection: to the trace database.
        version: its present version.
        place: what messages call the database.
        to: the version that it shall have.
    """
    many = connection.execute(select(func.count(runs.c.run))).scalar_one()
    began = time.monotonic()
    if many > _MANY:
        say(
            "trace database %s: bringing %s runs from version %d to %d; others cannot write meanwhile, and "
            "if this is stopped everything is as before",
            place, f"{many:,}", version, to,
        )  # fmt: skip
    scripts = ScriptDirectory(str(SCRIPTS))
    steps = list(scripts.iterate_revisions(str(to), str(version)))
    with Operations.context(MigrationContext.configure(connection)):
        for step in reversed(steps):
            step.module.upgrade()
    connection.execute(update(schema_info).values(version=to))
    if many > _MANY:
        say("trace database %s: version %d after %.0f s", place, to, time.monotonic() - began)
