"""Checking that what is stored is what was stored: the rows against the ledger, and the ledger itself."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, column, select

from cascade.errors import TraceError
from cascade.records import Record
from cascade.trace.database import parse_url, place, reading
from cascade.trace.ledger import (
    GENESIS,
    Draft,
    Head,
    body_of_grade,
    body_of_run,
    head,
    link,
    mark_pruned,
    sign,
)
from cascade.trace.rows import raw, raw_chunks, raw_rows
from cascade.trace.tables import calls, grades, ledger, runs, steps

_MOST = 1000  # problems that are named; all are counted


class Verification(Record):
    """What a check of the whole store found.

    `problems` names the first thousand of `count`. `signed` entries carry a valid signature, which covers
    every entry before, too, as it signs the chain.
    """

    entries: int = 0
    runs: int = 0
    grades: int = 0
    replaced: int = 0
    pruned: int = 0
    signed: int = 0
    last: int = 0
    head: str = GENESIS.hex()
    count: int = 0
    problems: tuple[str, ...] = ()


def read_head(url: str) -> Head:
    """Return the last entry of the ledger of the database at `url`.

    Raises:
        TraceError: the database cannot be read.
    """
    with reading(url) as connection:
        return Head() if connection is None else head(connection)


def verify(url: str, *, anchor: str | None = None, key: bytes | None = None) -> Verification:
    """Check every run, grade and entry of the ledger, from the first on.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file.
        anchor: the link of an entry as it was known earlier, in hexadecimal; it must still be there.
        key: what the entries are signed with; without it signatures are not checked.

    Raises:
        TraceError: the database cannot be read.
    """
    wanted = _anchor(anchor)
    with reading(url) as connection:
        if connection is None:
            raise TraceError(
                f"trace database {place(parse_url(url))} does not exist; there is nothing to verify"
            )
        audit = _Audit(connection, key, wanted)
        audit.run()
        return audit.outcome()


def _anchor(text: str | None) -> bytes | None:
    try:
        found = None if text is None else bytes.fromhex(text)
    except ValueError:
        found = b""
    if found is not None and len(found) != len(GENESIS):
        raise TraceError(
            f"anchor {text!r} is no link; give the 64 hexadecimal digits of `cascade trace head`"
        )
    return found


@dataclass
class _Audit:
    """A check at work."""

    connection: Connection
    key: bytes | None
    anchor: bytes | None
    problems: list[str] = field(default_factory=list)
    count: int = 0
    tally: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("entries", "pruned", "replaced", "signed"), 0)
    )
    found: dict[str, int] = field(default_factory=lambda: {"runs": 0, "grades": 0})
    last: Head = field(default_factory=Head)
    waiting: dict[str, int] = field(default_factory=dict)  # run → its entry, not replaced so far
    prunings: dict[int, Any] = field(default_factory=dict)  # entry → running hash of what it pruned
    unsigned: int | None = None  # the first entry without a signature after one with

    def run(self) -> None:
        """Go through the ledger, then look for rows that it does not know."""
        for chunk in raw_chunks(self.connection, raw(ledger)):
            numbers = [row["seq"] for row in chunk]
            bodies = {"runs": self._runs(numbers), "grades": self._grades(numbers)}
            for entry in chunk:
                self._entry(entry, bodies)
        for name, number in self.waiting.items():
            self._say(f"run {name!r} (entry {number}), which waited for a person, was removed")
        for number in self.prunings:
            self._say(f"entry {number} of the ledger, which says what was pruned, was removed")
        self._strangers()
        if self.anchor is not None:
            self._say(
                f"no entry of the ledger has the anchor {self.anchor.hex()}: "
                "its end was cut off, or all were made anew"
            )
        if self.key and not self.tally["signed"]:
            self._say("no entry of the ledger is signed with this key")
        elif self.key and self.unsigned:
            self._say(f"entry {self.unsigned} of the ledger is not signed, though entries before it are")

    def outcome(self) -> Verification:
        """Return what was found."""
        return Verification(
            **self.tally,
            **self.found,
            last=self.last.seq,
            head=str(self.last),
            count=self.count,
            problems=tuple(self.problems),
        )

    def _say(self, problem: str) -> None:
        self.count += 1
        if len(self.problems) < _MOST:
            self.problems.append(problem)

    def _entry(self, entry: Mapping[str, Any], bodies: Mapping[str, Mapping[int, tuple[str, bytes]]]) -> None:
        number, kind, name = entry["seq"], entry["kind"], entry["run"]
        self.tally["entries"] += 1
        self._link(entry)
        if kind == "prune":
            digest = self.prunings.pop(number, hashlib.sha256())
            if digest.digest() != _bytes(entry["body"]):
                self._say(f"what entry {number} of the ledger pruned is not what is marked as pruned")
            return
        if kind in ("run", "waiting") and name in self.waiting:
            del self.waiting[name]
            self.tally["replaced"] += 1
        table = "grades" if kind == "grade" else "runs"
        there = bodies[table].get(number)
        if entry["pruned"] is not None:
            self.tally["pruned"] += 1
            mark_pruned(self.prunings.setdefault(entry["pruned"], hashlib.sha256()), number)
        elif there is None and kind == "waiting":
            self.waiting[name] = number
        else:
            self._compare(entry, there, table)

    def _compare(self, entry: Mapping[str, Any], there: tuple[str, bytes] | None, table: str) -> None:
        """Compare an entry of a run or of a grade with the row that has its number."""
        number, name = entry["seq"], entry["run"]
        what = f"run {name!r}" if table == "runs" else f"a grade of run {name!r}"
        self.found[table] += there is not None
        if there is None or there[0] != name:
            moved = self._place_of(name) if table == "runs" else None
            gone = "was removed" if moved is None else f"was reordered: it stands at {moved}"
            self._say(f"{what} (entry {number}) {gone}")
        elif there[1] != _bytes(entry["body"]):
            self._say(f"{what} (entry {number}) was edited")

    def _link(self, entry: Mapping[str, Any]) -> None:
        """Check an entry's hash of itself and of the one before it, and its signature."""
        number, stored = entry["seq"], _bytes(entry["link"])
        draft = Draft(entry["kind"], entry["run"], _bytes(entry["body"]), entry["note"])
        if link(self.last.link, number, draft) != stored:
            self._say(
                f"entry {number} of the ledger ({entry['kind']} {entry['run'] or ''!r}) does not follow from "
                f"entry {self.last.seq}: one of them was edited, or one between them removed"
            )
        self.last = Head(number, stored)
        if stored == self.anchor:
            self.anchor = None
        if self.key is None:
            return
        if entry["sign"] is None:
            if self.tally["signed"] and self.unsigned is None:
                self.unsigned = number
        elif hmac.compare_digest(_bytes(entry["sign"]), sign(stored, self.key)):
            self.tally["signed"] += 1
        else:
            self._say(f"the signature of entry {number} of the ledger is not by this key")

    def _place_of(self, name: str) -> int | None:
        return self.connection.execute(select(runs.c.seq).where(runs.c.run == name)).scalar()

    def _runs(self, numbers: Sequence[int]) -> dict[int, tuple[str, bytes]]:
        """Return name and hash of the runs with these numbers."""
        rows = self._rows(raw(runs).where(column("seq").in_(numbers)))
        return {
            found.run["seq"]: (found.run["run"], body_of_run(found))
            for found in raw_rows(self.connection, rows)
        }

    def _grades(self, numbers: Sequence[int]) -> dict[int, tuple[str, bytes]]:
        rows = self._rows(raw(grades).where(column("seq").in_(numbers)))
        return {row["seq"]: (row["run"], body_of_grade(row)) for row in rows}

    def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        return [dict(row) for row in self.connection.execute(query).mappings()]

    def _strangers(self) -> None:
        """Name rows that no entry of the ledger stands for."""
        for table, kinds in ((runs, ("run", "waiting")), (grades, ("grade",))):
            known = select(ledger.c.seq).where(ledger.c.kind.in_(kinds), ledger.c.pruned.is_(None))
            query = select(table.c.seq, table.c.run).where(table.c.seq.not_in(known)).order_by(table.c.seq)
            for row in self.connection.execute(query):
                self._say(
                    f"{table.name} has run {row.run!r} at {row.seq}, which no entry of the ledger knows"
                )
        for table in (steps, calls, grades):
            orphans = select(table.c.run).where(table.c.run.not_in(select(runs.c.run))).distinct()
            for name in self.connection.execute(orphans).scalars():
                self._say(f"{table.name} has rows of run {name!r}, which does not exist")


def _bytes(value: object) -> bytes:
    """Return a hash as it is stored; who edits the ledger may have left anything there."""
    return bytes(value) if isinstance(value, bytes | memoryview) else repr(value).encode()
