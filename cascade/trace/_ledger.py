"""The ledger: a hash chain over everything that was stored, in commit order.

Each run, each grade and each pruning has one entry. Its `body` is the SHA-256 of what was stored; its `link`
is the SHA-256 of the previous link and of the entry itself. To change, remove or reorder anything unnoticed,
every later link must be computed again. Whoever can write to the database can do that, unless the links are
signed with a key that only the writer has, or one link is known elsewhere (an anchor). Bellare and Yee,
"Forward integrity for secure audit logs", 1997.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Boolean, Connection, Double, Table, insert, select
from sqlalchemy.types import TypeEngine

from cascade.environment import MIN_KEY_BYTES, TRACE_KEY, TRACE_KEY_FILE
from cascade.errors import TraceError
from cascade.trace._rows import RunRows
from cascade.trace._tables import calls, grades, ledger, runs, steps

EntryKind = Literal["run", "waiting", "grade", "prune"]
GENESIS = bytes(32)  # the link before the first
_LAST = select(ledger.c.seq, ledger.c.link).order_by(ledger.c.seq.desc()).limit(1)
_APPEND = insert(ledger)


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """An entry that is not in the ledger yet."""

    kind: EntryKind
    run: str | None
    body: bytes
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a ledger: its number and its link; 0 and 32 zero bytes if it is empty."""

    seq: int = 0
    link: bytes = GENESIS

    def __str__(self) -> str:
        return self.link.hex()


def read_key(file: Path | None = None) -> bytes | None:
    """Return the signing key from `file`, else from CASCADE_TRACE_KEY.

    Without either, the key is read from the file named by CASCADE_TRACE_KEY_FILE; without that, it is None.

    Raises:
        TraceError: the file cannot be read, or the key has fewer than 16 bytes.
    """
    named = os.environ.get(TRACE_KEY_FILE)
    given = None if file else os.environ.get(TRACE_KEY)
    if given:
        source, key = TRACE_KEY, given.encode()
    elif file or named:
        source = str(file or named)
        try:
            key = Path(source).read_bytes().strip()
        except OSError as error:
            raise TraceError(
                f"key file {source}: {error.strerror or error}; give a file that can be read"
            ) from error
    else:
        return None
    if len(key) < MIN_KEY_BYTES:
        raise TraceError(
            f"the signing key in {source} has {len(key)} bytes; expected at least {MIN_KEY_BYTES}; "
            "`openssl rand -hex 32` makes one"
        )
    return key


def lock_ledger(connection: Connection) -> None:
    """Keep other processes from writing until this transaction ends; must be its first statement."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("LOCK TABLE ledger IN EXCLUSIVE MODE")


def read_last(connection: Connection) -> Head:
    """Return the last entry."""
    row = connection.execute(_LAST).first()
    return Head() if row is None else Head(row.seq, bytes(row.link))


def append_entries(
    connection: Connection, entries: Sequence[PendingEntry], key: bytes | None
) -> Sequence[int]:
    """Append entries, signed with `key`, and return their numbers; the transaction must hold the lock."""
    last = read_last(connection)
    numbers = range(last.seq + 1, last.seq + 1 + len(entries))
    rows: list[dict[str, Any]] = []
    for number, entry in zip(numbers, entries, strict=True):
        last = Head(number, link(last.link, number, entry))
        row = {"seq": number, "kind": entry.kind, "run": entry.run, "body": entry.body, "note": entry.note}
        rows.append(row | {"link": last.link, "sign": sign(last.link, key) if key else None})
    if rows:
        connection.execute(_APPEND, rows)
    return numbers


def link(previous: bytes, seq: int, entry: PendingEntry) -> bytes:
    """Return the hash of an entry and of the previous link."""
    content = json.dumps([seq, entry.kind, entry.run, entry.note], default=repr)
    return hashlib.sha256(previous + entry.body + content.encode()).digest()


def sign(link: bytes, key: bytes) -> bytes:
    """Return the HMAC-SHA256 of a link."""
    return hmac.digest(key, link, "sha256")


def hash_run(rows: RunRows) -> bytes:
    """Return the hash of a run: of its rows in `runs`, `steps` and `calls`."""
    return _sha256(
        [
            _cells(runs, rows.run),
            [_cells(steps, row) for row in rows.steps],
            [_cells(calls, row) for row in rows.calls],
        ]
    )


def hash_grade(row: Mapping[str, Any]) -> bytes:
    """Return the hash of a row of `grades`."""
    return _sha256(_cells(grades, row))


def hash_pruned(numbers: Iterable[int]) -> bytes:
    """Return the hash of the numbers, in rising order, of the entries whose contents were removed."""
    digest = hashlib.sha256()
    for number in numbers:
        add_pruned(digest, number)
    return digest.digest()


def add_pruned(digest: hashlib._Hash, number: int) -> None:
    """Add the number of an entry to the hash of a pruning."""
    digest.update(b"%d," % number)


def entry_kind(status: object) -> EntryKind:
    """Return the kind of entry for a run with this status; a waiting run will be replaced."""
    return "waiting" if status == "waiting" else "run"


def _sha256(content: Any) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).digest()


def _cells(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of `row` that differ from their defaults, so that later columns change no hash."""
    floats, flags, defaults = _FLOATS[table.name], _FLAGS[table.name], _DEFAULTS[table.name]
    cells = {}
    for name, value in row.items():
        if value is None or name == "seq":
            continue
        stored = _float(value) if name in floats else _flag(value) if name in flags else value
        if stored is not None and (name not in defaults or stored != defaults[name]):
            cells[name] = stored
    return cells


def _float(value: Any) -> Any:
    """Return a number as every database gives it back: SQLite has neither NaN nor -0."""
    if not isinstance(value, int | float):
        return value
    return None if value != value else float(value) + 0.0


def _flag(value: Any) -> Any:
    """Return a truth value as it is in every database: SQLite has 0 and 1."""
    return bool(value) if value in (0, 1) else value


def _of_type(kind: type[TypeEngine[Any]]) -> dict[str, frozenset[str]]:
    """Return, for each table, the names of its columns of this type."""
    return {
        table.name: frozenset(item.name for item in table.c if isinstance(item.type, kind))
        for table in (runs, steps, calls, grades)
    }


_FLOATS, _FLAGS = _of_type(Double), _of_type(Boolean)
_DEFAULTS: dict[str, dict[str, object]] = {
    "runs": {"tool_choice": "auto"},
    "steps": {"marginal": False, "started": 0.0},
    "calls": {"started": 0.0},
    "grades": {},
}
