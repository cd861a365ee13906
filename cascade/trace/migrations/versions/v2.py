"""Version 2: conversations, tools, start times, and the ledger, which every stored run enters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cascade.trace.ledger import Draft, append, body_of_grade, body_of_run, head, kind_of
from cascade.trace.progress import Progress
from cascade.trace.rows import raw, raw_chunks, raw_rows
from cascade.trace.tables import grades, ledger, runs

revision = "2"
down_revision = "1"

_NEW = {
    "runs": ("tool_calls", "messages", "tools", "output_schema", "account"),
    "calls": ("tool_calls",),
}


def upgrade() -> None:
    """Add the columns and tables, and enter what is stored."""
    for table, names in _NEW.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.Text))
    op.add_column("runs", sa.Column("tool_choice", sa.Text, nullable=False, server_default="auto"))
    op.add_column("steps", sa.Column("marginal", sa.Boolean, nullable=False, server_default=sa.false()))
    for table in ("steps", "calls"):
        op.add_column(table, sa.Column("started", sa.Double, nullable=False, server_default=sa.text("0")))
    op.create_index("ix_runs_account", "runs", ["account"])
    connection = op.get_bind()
    grades.create(connection, checkfirst=True)
    ledger.create(connection)
    _enter_runs(connection)
    _enter_grades(connection)


def _enter_runs(connection: sa.Connection) -> None:
    total, done = connection.execute(sa.select(sa.func.count(runs.c.run))).scalar_one(), 0
    progress = Progress("hashing the runs", total)
    for chunk in raw_chunks(connection, raw(runs)):
        found = raw_rows(connection, chunk)
        drafts = [Draft(kind_of(rows.run["status"]), rows.run["run"], body_of_run(rows)) for rows in found]
        append(connection, drafts, None, [row["seq"] for row in chunk])
        done += len(chunk)
        progress.reached(done)


def _enter_grades(connection: sa.Connection) -> None:
    """Grades had numbers of their own; now the ledger numbers everything."""
    rows = [dict(row) for row in connection.execute(raw(grades).order_by(sa.column("seq"))).mappings()]
    connection.execute(sa.delete(grades))
    drafts = [Draft("grade", row["run"], body_of_grade(row)) for row in rows]
    first = head(connection).seq + 1
    append(connection, drafts, None)
    for number, row in enumerate(rows, first):
        connection.execute(sa.insert(grades).values(row | {"seq": number}))
