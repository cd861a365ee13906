"""Reading a SQLite database of an older cascade as it is: temporary views stand before its tables.

SQLite looks a name up among the temporary ones first. So a view `runs` that adds what the table `runs`
did not have yet is what queries see, and nothing in the file changes.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Column, DefaultClause, Table

from cascade.trace.tables import SCHEMA_VERSION, metadata


def outdated(path: Path) -> bool:
    """Return whether the database at `path` has tables of an older cascade."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        return _is_old(connection)
    return False  # opening it in earnest will say what is wrong


def shadow_old_tables(connection: sqlite3.Connection) -> None:
    """Put views before the tables of an older cascade that lack columns, or are not there at all."""
    if not _is_old(connection):
        return
    for table in metadata.tables.values():
        have = {row[1] for row in connection.execute(f"PRAGMA main.table_info({table.name})")}
        if {column.name for column in table.c} - have:
            connection.execute(_view(table, have))


def _is_old(connection: sqlite3.Connection) -> bool:
    try:
        row = connection.execute("SELECT version FROM main.schema_info").fetchone()
    except sqlite3.DatabaseError:  # no such table, or no database at all: not for us to say
        return False
    return row is not None and isinstance(row[0], int) and row[0] < SCHEMA_VERSION


def _view(table: Table, have: set[str]) -> str:
    cells = [
        f'"{column.name}"' if column.name in have else f'{_default(column)} AS "{column.name}"'
        for column in table.c
    ]
    source = f"FROM main.{table.name}" if have else "WHERE 0"
    return f"CREATE TEMP VIEW {table.name} AS SELECT {', '.join(cells)} {source}"


def _default(column: Column[Any]) -> str:
    default = column.server_default
    if not isinstance(default, DefaultClause):
        return "NULL"
    return f"'{default.arg}'" if isinstance(default.arg, str) else str(default.arg).replace("false", "0")
