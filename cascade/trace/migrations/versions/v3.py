"""Version 3: indexes of the texts, of graphs' versions, and of all that filters ask for."""

from __future__ import annotations

from alembic import op

from cascade.trace.fulltext import create_index

revision = "3"
down_revision = "2"

_FILTERED = ["seq", "status", "rule", "tier", "graph", "digest", "confidence", "cost_usd", "started"]


def upgrade() -> None:
    """Make the indexes."""
    op.create_index("ix_runs_digest", "runs", ["digest"])
    op.create_index("ix_runs_filter", "runs", _FILTERED)
    create_index(op.get_bind())
