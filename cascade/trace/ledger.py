"""The ledger: a hash chain over everything that was stored, in the order of commit.

Each run, each grade and each pruning has one entry. Its `body` is the SHA-256 of what was stored, its
`link` the SHA-256 of the link before it and of the entry itself: who changes, removes or reorders anything
would have to make every later link anew. That can be done by who may write to the database, unless the
links are signed with a key that the writer has and the attacker has not, or a link is known elsewhere (an
anchor). Bellare and Yee, "Forward integrity for secure audit logs", 1997.
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

from cascade.errors import TraceError
from cascade.trace.rows import Rows
from cascade.trace.tables import calls, grades, ledger, runs, steps

Kind = Literal["run", "waiting", "grade", "prune"]
GENESIS = bytes(32)  # the link before the first
_LEAST_KEY = 16  # bytes of a key
_LAST = select(ledger.c.seq, ledger.c.link).order_by(ledger.c.seq.desc()).limit(1)
_APPEND = insert(ledger)


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry that is not in the ledger yet."""

    kind: Kind
    run: str | None
    body: bytes
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a ledger: its number and its link; 0 and 32 zero bytes before the first."""

    seq: int = 0
    link: bytes = GENESIS

    def __str__(self) -> str:
        return self.link.hex()


def read_key(file: Path | None = None) -> bytes | None:
    """Return the signing key: what `file` holds, else CASCADE_TRACE_KEY.

    Else what is in the file that CASCADE_TRACE_KEY_FILE names, else None.

    Raises:
        TraceError: the file cannot be read, or the key has less than 16 bytes.
    """
    named = os.environ.get("CASCADE_TRACE_KEY_FILE")
    given = None if file else os.environ.get("CASCADE_TRACE_KEY")
    if given:
        place, key = "CASCADE_TRACE_KEY", given.encode()
    elif file or named:
        place = str(file or named)
        try:
            key = Path(place).read_bytes().strip()
        except OSError as error:
            raise TraceError(
                f"key file {place}: {error.strerror or error}; give a file that can be read"
            ) from error
    else:
        return None
    if len(key) < _LEAST_KEY:
        raise TraceError(
            f"the signing key in {place} has {len(key)} bytes; expected at least {_LEAST_KEY}; "
            "`openssl rand -hex 32` makes one"
        )
    return key


def lock(connection: Connection) -> None:
    """Keep other processes from writing until this transaction ends; must be its first statement."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("LOCK TABLE ledger IN EXCLUSIVE MODE")


def head(connection: Connection) -> Head:
    """Return the last entry."""
    row = connection.execute(_LAST).first()
    return Head() if row is None else Head(row.seq, bytes(row.link))


def append(
    connection: Connection, drafts: Sequence[Draft], key: bytes | None, numbers: Sequence[int] | None = None
) -> list[int]:
    """Append entries in a transaction that holds the lock; return their numbers.

    Args:
        connection: to the trace database.
        drafts: what to append.
        key: what to sign with.
        numbers: theirs, rising, where they have some already.
    """
    last = head(connection)
    given = list(numbers or range(last.seq + 1, last.seq + 1 + len(drafts)))
    rows: list[dict[str, object]] = []
    for number, draft in zip(given, drafts, strict=True):
        last = Head(number, link(last.link, number, draft))
        signed = sign(last.link, key) if key else None
        entry: dict[str, Any] = {"kind": draft.kind, "run": draft.run, "body": draft.body, "note": draft.note}
        rows.append(entry | {"seq": number, "link": last.link, "sign": signed})
    if rows:
        connection.execute(_APPEND, rows)
    return given


def link(before: bytes, seq: int, entry: Draft) -> bytes:
    """Return the hash of an entry and of the link before it."""
    told = json.dumps([seq, entry.kind, entry.run, entry.note], default=repr)
    return hashlib.sha256(before + entry.body + told.encode()).digest()


def sign(link: bytes, key: bytes) -> bytes:
    """Return the HMAC-SHA256 of a link."""
    return hmac.digest(key, link, "sha256")


def body_of_run(rows: Rows) -> bytes:
    """Return the hash of a run: its rows in `runs`, `steps` and `calls`."""
    told = [
        _cells(runs, rows.run),
        [_cells(steps, row) for row in rows.steps],
        [_cells(calls, row) for row in rows.calls],
    ]
    return _digest(told)


def body_of_grade(row: Mapping[str, Any]) -> bytes:
    """Return the hash of a row of `grades`."""
    return _digest(_cells(grades, row))


def body_of_prune(numbers: Iterable[int]) -> bytes:
    """Return the hash of the rising numbers of the entries whose contents were removed."""
    digest = hashlib.sha256()
    for number in numbers:
        mark_pruned(digest, number)
    return digest.digest()


def mark_pruned(digest: hashlib._Hash, number: int) -> None:
    """Add the number of an entry to the hash of a pruning."""
    digest.update(b"%d," % number)


def kind_of(status: object) -> Kind:
    """Return under which kind a run with this status stands; one that waits will be replaced."""
    return "waiting" if status == "waiting" else "run"


def _digest(told: Any) -> bytes:
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=repr).encode()).digest()


def _cells(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of `row` counts: what is not its column's default, so that later columns change no hash."""
    floats, flags, defaults = _FLOATS[table.name], _FLAGS[table.name], _DEFAULTS[table.name]
    cells = {}
    for name, value in row.items():
        if value is None or name == "seq":
            continue
        same = _float(value) if name in floats else _flag(value) if name in flags else value
        if same is not None and (name not in defaults or same != defaults[name]):
            cells[name] = same
    return cells


def _float(value: Any) -> Any:
    """Return the number as it comes back from any database: SQLite has neither NaN nor -0."""
    if not isinstance(value, int | float):
        return value
    return None if value != value else float(value) + 0.0


def _flag(value: Any) -> Any:
    """Return a truth value as it is in any database: SQLite has 0 and 1."""
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
