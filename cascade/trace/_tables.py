"""The tables of the trace store.

Every field of a result is in exactly one column, so rows can be queried and a result is read back without
loss. Lists and mappings are JSON in a text column. A column that is added in a later version must be nullable
or have a default, so that older rows, and their hashes, stay as they are. A change here needs a new Alembic
revision in `migrations/versions` and a higher SCHEMA_VERSION.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

from cascade.formats.plain import valid_unicode

SCHEMA_VERSION = 1


class UnicodeText(TypeDecorator[str]):
    """Text in which lone surrogates become U+FFFD: models may produce them, databases do not store them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        """Return `value` as the database can store it."""
        return None if value is None else valid_unicode(value)


class Json(TypeDecorator[Any]):
    """JSON in a text column, in Python's dialect, because a log-probability may be -Infinity."""

    impl = UnicodeText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> str | None:
        """Return `value` as JSON text; None stays NULL."""
        return None if value is None else dumps(value)

    def process_result_value(self, value: str | None, dialect: object) -> Any:
        """Return the value of the JSON text."""
        return None if value is None else json.loads(value)


def dumps(value: Any) -> str:
    """Return `value` as JSON text that a database can store."""
    return valid_unicode(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s"})

_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite's row number must be an INTEGER

schema_info = Table("cascade_schema", metadata, Column("version", Integer, nullable=False))

runs = Table(
    "runs",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=False),  # commit order: `ledger.seq`
    Column("run", UnicodeText, nullable=False, unique=True),
    Column("graph", UnicodeText, nullable=False, index=True),
    Column("digest", UnicodeText, index=True),
    Column("status", UnicodeText, nullable=False, index=True),
    Column("rule", UnicodeText, index=True),
    Column("text", UnicodeText),
    Column("tool_calls", Json),
    Column("draft", UnicodeText),
    Column("confidence", Double, index=True),
    Column("calibrated", Boolean),
    Column("stage", UnicodeText),
    Column("model", UnicodeText),
    Column("tier", UnicodeText, index=True),
    Column("cost_usd", Double, nullable=False, index=True),
    Column("seconds", Double, nullable=False),
    Column("started", UnicodeText, nullable=False, index=True),
    Column("baseline_model", UnicodeText),
    Column("baseline_cost_usd", Double),
    Column("baseline_assumption", UnicodeText),
    Column("request_text", UnicodeText, nullable=False),
    Column("messages", Json),
    Column("tools", Json),
    Column("tool_choice", UnicodeText, nullable=False, server_default="auto"),
    Column("output_schema", Json),
    Column("local_only", Boolean, nullable=False),
    Column("account", UnicodeText),
    Column("metadata", Json, nullable=False),
)

# All filtered columns in commit order: SQLite scans it if no condition is rare (`cascade.trace._search`).
_FILTERED = ("seq", "status", "rule", "tier", "graph", "digest", "confidence", "cost_usd", "started")
Index("ix_runs_filter", *(runs.c[name] for name in _FILTERED)).ddl_if(dialect="sqlite")

steps = Table(
    "steps",
    metadata,
    Column("run", UnicodeText, ForeignKey("runs.run", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("stage", UnicodeText, nullable=False),
    Column("action", UnicodeText, nullable=False),
    Column("rule", UnicodeText, nullable=False),
    Column("threshold", Double),
    Column("target", UnicodeText),
    Column("facts", Json),
    Column("detail", UnicodeText),
    Column("marginal", Boolean, nullable=False, server_default=false()),
    Column("gate", Json),
    Column("estimate_by", UnicodeText),  # NULL if nothing was estimated
    Column("chosen", Integer),
    Column("signals", Json),
    Column("score", Double),
    Column("confidence", Double),
    Column("calibrated", Boolean),
    Column("started", Double, nullable=False, server_default=text("0")),
    Column("seconds", Double, nullable=False),
    sqlite_with_rowid=False,
)

calls = Table(
    "calls",
    metadata,
    Column("run", UnicodeText, ForeignKey("runs.run", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("call", Integer, primary_key=True),
    Column("model", UnicodeText, nullable=False),
    Column("tier", UnicodeText, nullable=False),
    Column("role", UnicodeText, nullable=False),
    Column("sample", Integer, nullable=False),
    Column("text", UnicodeText, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("started", Double, nullable=False, server_default=text("0")),
    Column("seconds", Double, nullable=False),
    Column("local", Boolean, nullable=False),
    Column("error", UnicodeText),
    Column("tool_calls", Json),
    Column("labels", Json),
    Column("tokens", Json, nullable=False),  # [[text, logprob, margin, entropy], …]
    Column("meta", Json, nullable=False),
    sqlite_with_rowid=False,
)

grades = Table(
    "grades",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=False),  # grading order: `ledger.seq`
    Column("run", UnicodeText, ForeignKey("runs.run", ondelete="CASCADE"), nullable=False, index=True),
    Column("correct", Boolean, nullable=False),
    Column("by", UnicodeText),
    Column("note", UnicodeText),
    Column("at", UnicodeText, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),  # run, waiting, grade or prune
    Column("run", UnicodeText),
    Column("body", LargeBinary, nullable=False),  # hash of what was stored
    Column("link", LargeBinary, nullable=False),  # hash of this entry and of the previous link
    Column("sign", LargeBinary),  # HMAC of the link, if the writer had a key
    Column("pruned", BigInteger),  # the entry that recorded the pruning
    Column("note", UnicodeText),
)
