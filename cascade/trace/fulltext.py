"""The index that finds pieces of texts: three letters at a time, so that any piece is found, not only words.

SQLite has it as an FTS5 table that triggers keep up to date (https://sqlite.org/fts5.html, the trigram
tokenizer), PostgreSQL as a GIN index of pg_trgm. Hashes in place of texts are not indexed. Where the database
cannot make the index, texts are looked for one by one.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

MIN_LETTERS = 3  # that the index can look up
_CHUNK = 500  # runs that are looked up at first
_GROUPS = 20  # groups of letters that are looked up; the text itself decides
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
    """Make the index of what is stored, if this database can."""
    try:
        with connection.begin_nested():
            for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRES:
                connection.execute(text(statement))
    except SQLAlchemyError as error:
        if not any(lack in str(error) for lack in ("no such module", "no such tokenizer", "pg_trgm")):
            raise


def has_index(connection: Connection) -> bool:
    """Return whether this SQLite database has the index."""
    query = "SELECT 1 FROM main.sqlite_master WHERE name = 'runs_fts'"
    return connection.exec_driver_sql(query).first() is not None


def candidates(connection: Connection, piece: str, below: int) -> Iterator[list[int]]:
    """Yield the numbers of the runs in which `piece` may be, the newest first, some hundreds at a time.

    Groups of three letters that make it up are in them, though perhaps not in this order: look at the text.

    Args:
        connection: to a SQLite database with the index.
        piece: at least three letters.
        below: only numbers below this one.
    """
    # Every third group has all its letters; the ones between cost more to look up than they rule out.
    starts = (*range(0, len(piece) - MIN_LETTERS, MIN_LETTERS), len(piece) - MIN_LETTERS)
    groups = dict.fromkeys(piece[start : start + MIN_LETTERS] for start in starts)
    match = " AND ".join('"' + group.replace('"', '""') + '"' for group in list(groups)[:_GROUPS])
    query = text(
        "SELECT rowid FROM runs_fts WHERE runs_fts MATCH :match AND rowid < :below "
        "ORDER BY rowid DESC LIMIT :most"
    )
    last = below
    most = _CHUNK
    while True:
        found = list(connection.execute(query, {"match": match, "below": last, "most": most}).scalars())
        if not found:
            return
        yield found
        last = found[-1]
        most = min(2 * most, 20_000)
