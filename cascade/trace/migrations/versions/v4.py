"""Version 4: the runs in columns, in place of an index of nine columns."""

from __future__ import annotations

from alembic import op

from cascade.trace.blocks import seal
from cascade.trace.ledger import head
from cascade.trace.tables import blocks

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Sum up what is stored."""
    op.drop_index("ix_runs_filter", "runs")
    connection = op.get_bind()
    blocks.create(connection)
    seal(connection, head(connection).seq)
