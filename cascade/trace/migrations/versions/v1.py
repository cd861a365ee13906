"""Version 1: the tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cascade.trace._fulltext import create_index

revision = "1"
down_revision = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite's row number must be an INTEGER
_INDEXED = ("graph", "digest", "status", "rule", "confidence", "tier", "cost_usd", "started")
_FILTERED = ["seq", "status", "rule", "tier", "graph", "digest", "confidence", "cost_usd", "started"]


def upgrade() -> None:
    """Create the tables and their indexes."""
    op.create_table("cascade_schema", sa.Column("version", sa.Integer, nullable=False))
    op.execute("INSERT INTO cascade_schema VALUES (1)")
    _create_runs()
    _create_steps()
    _create_calls()
    op.create_table(
        "grades",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=False),
        sa.Column("run", sa.Text, _run(), nullable=False),
        sa.Column("correct", sa.Boolean, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("at", sa.Text, nullable=False),
    )
    op.create_index("ix_grades_run", "grades", ["run"])
    op.create_table(
        "ledger",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("link", sa.LargeBinary, nullable=False),
        sa.Column("sign", sa.LargeBinary),
        sa.Column("pruned", sa.BigInteger),
        sa.Column("note", sa.Text),
    )
    create_index(op.get_bind())


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=False),
        sa.Column("run", sa.Text, nullable=False, unique=True),
        sa.Column("graph", sa.Text, nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("rule", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("tool_calls", sa.Text),
        sa.Column("draft", sa.Text),
        sa.Column("confidence", sa.Double),
        sa.Column("calibrated", sa.Boolean),
        sa.Column("stage", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("tier", sa.Text),
        sa.Column("cost_usd", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("started", sa.Text, nullable=False),
        sa.Column("baseline_model", sa.Text),
        sa.Column("baseline_cost_usd", sa.Double),
        sa.Column("baseline_assumption", sa.Text),
        sa.Column("request_text", sa.Text, nullable=False),
        sa.Column("messages", sa.Text),
        sa.Column("tools", sa.Text),
        sa.Column("tool_choice", sa.Text, nullable=False, server_default="auto"),
        sa.Column("output_schema", sa.Text),
        sa.Column("local_only", sa.Boolean, nullable=False),
        sa.Column("account", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    for column in _INDEXED:
        op.create_index(f"ix_runs_{column}", "runs", [column])
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("ix_runs_filter", "runs", _FILTERED)


def _run() -> sa.ForeignKey:
    return sa.ForeignKey("runs.run", ondelete="CASCADE")


def _create_steps() -> None:
    op.create_table(
        "steps",
        sa.Column("run", sa.Text, _run(), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("threshold", sa.Double),
        sa.Column("target", sa.Text),
        sa.Column("facts", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("marginal", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("gate", sa.Text),
        sa.Column("estimate_by", sa.Text),
        sa.Column("chosen", sa.Integer),
        sa.Column("signals", sa.Text),
        sa.Column("score", sa.Double),
        sa.Column("confidence", sa.Double),
        sa.Column("calibrated", sa.Boolean),
        sa.Column("started", sa.Double, nullable=False, server_default=sa.text("0")),
        sa.Column("seconds", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )


def _create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("run", sa.Text, _run(), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True),
        sa.Column("call", sa.Integer, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("sample", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("tokens_in", sa.BigInteger, nullable=False),
        sa.Column("tokens_out", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Double, nullable=False),
        sa.Column("started", sa.Double, nullable=False, server_default=sa.text("0")),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("local", sa.Boolean, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("tool_calls", sa.Text),
        sa.Column("labels", sa.Text),
        sa.Column("tokens", sa.Text, nullable=False),
        sa.Column("meta", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
