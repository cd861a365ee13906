"""The full-text index, made of groups of three letters, so that any piece is found, not only whole words.

In SQLite it is an FTS5 table that triggers keep up to date (https://sqlite.org/fts5.html, the trigram
tokenizer), in PostgreSQL a GIN index of pg_trgm. Hashes that replace texts are not indexed. If the database
does not support the index, every text is read.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Integer, column, literal_column, table, text
from sqlalchemy.exc import SQLAlchemyError

MIN_LETTERS = 3  # that the index can look up
_MAX_GROUPS = 20  # groups of letters that are looked up; the caller checks the text
runs_fts = table("runs_fts", column("rowid", Integer))  # SQLite's
_SQLITE = (
    """
CREATE VIRTUAL TABLE runs_fts USING fts5(
    request_text, text, draft, content='runs', content_rowid='seq', tokenize='trigram', detail=none
)
""",
    """
CREATE TRIGGER runs_fts_insert AFTER INSERT ON runs WHEN new.request_text NOT LIKE 'sha256:%' BEGIN
    INSERT INTO runs_fts(rowid, request_text, text, draft)
    VALUES (new.seq, new.request_text, new.text, new.draft);
END
""",
    """
CREATE TRIGGER runs_fts_delete AFTER DELETE ON runs WHEN old.request_text NOT LIKE 'sha256:%' BEGIN
    INSERT INTO runs_fts(runs_fts, rowid, request_text, text, draft)
    VALUES ('delete', old.seq, old.request_text, old.text, old.draft);
END
""",
    """
INSERT INTO runs_fts(rowid, request_text, text, draft)
SELECT seq, request_text, text, draft FROM runs WHERE request_text NOT LIKE 'sha256:%'
""",
)
_POSTGRES = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    """
CREATE INDEX ix_runs_texts ON runs
USING gin (request_text gin_trgm_ops, text gin_trgm_ops, draft gin_trgm_ops)
WHERE request_text NOT LIKE 'sha256:%'
""",
)


def create_index(connection: Connection) -> None:
    """Create the index, and add what is stored, if this database supports it."""
    try:
        with connection.begin_nested():
            for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRES:
                connection.execute(text(statement))
    except SQLAlchemyError as error:
        if not any(reason in str(error) for reason in ("no such module", "no such tokenizer", "pg_trgm")):
            raise


def has_index(connection: Connection) -> bool:
    """Return whether this SQLite database has the index."""
    query = "SELECT 1 FROM main.sqlite_master WHERE name = 'runs_fts'"
    return connection.exec_driver_sql(query).first() is not None


def matches(piece: str) -> ColumnElement[bool]:
    """Return the condition on `runs_fts` that a run may contain `piece`, which has three letters or more.

    Such a run contains the groups of three letters of `piece`, but perhaps apart: check the text.
    """
    # Every third group covers all letters; those between cost more to look up than they rule out.
    starts = (*range(0, len(piece) - MIN_LETTERS, MIN_LETTERS), len(piece) - MIN_LETTERS)
    groups = dict.fromkeys(piece[start : start + MIN_LETTERS] for start in starts)
    query = " AND ".join('"' + group.replace('"', '""') + '"' for group in list(groups)[:_MAX_GROUPS])
    return literal_column("runs_fts").op("MATCH", is_comparison=True)(query)
