"""Checks the stored rows against the ledger, and the ledger itself."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, column, select

from cascade.errors import TraceError
from cascade.records import Record
from cascade.trace._budget_ledger import check_budgets
from cascade.trace._ledger import (
    GENESIS,
    Head,
    PendingEntry,
    add_pruned,
    hash_grade,
    hash_run,
    link,
    read_last,
    sign,
)
from cascade.trace._rows import raw_batches, raw_rows, select_raw
from cascade.trace._tables import calls, grades, ledger, runs, steps
from cascade.trace.database import display_url, parse_url, read_snapshot

_MAX_NAMED = 1000  # problems that are named; all are counted


class Verification(Record):
    """The result of checking the whole store.

    `budgets` counts the entries of the ledger of the budgets. `problems` names the first thousand of `count`.
    `signed` counts entries with a valid signature; each signature also covers all earlier entries, because it
    signs the chain.
    """

    entries: int = 0
    runs: int = 0
    grades: int = 0
    budgets: int = 0
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
    with read_snapshot(url) as connection:
        return Head() if connection is None else read_last(connection)


def verify(url: str, *, anchor: str | None = None, key: bytes | None = None) -> Verification:
    """Check every run, grade and ledger entry, from the first one on.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file.
        anchor: the link of an entry that was noted earlier, in hexadecimal; it must still be there.
        key: the key that signed the entries; without it, signatures are not checked.

    Raises:
        TraceError: the database cannot be read.
    """
    expected = _anchor(anchor)
    with read_snapshot(url) as connection:
        if connection is None:
            raise TraceError(
                f"trace database {display_url(parse_url(url))} does not exist; there is nothing to verify"
            )
        audit = _Audit(connection, key, expected)
        audit.check()
        return audit.result()


def _anchor(text: str | None) -> bytes | None:
    try:
        anchor = None if text is None else bytes.fromhex(text)
    except ValueError:
        anchor = b""
    if anchor is not None and len(anchor) != len(GENESIS):
        raise TraceError(
            f"anchor {text!r} is no link; give the 64 hexadecimal digits of `cascade trace head`"
        )
    return anchor


@dataclass
class _Audit:
    """The state of a check."""

    connection: Connection
    key: bytes | None
    anchor: bytes | None
    problems: list[str] = field(default_factory=list)
    count: int = 0
    tally: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("entries", "pruned", "replaced", "signed"), 0)
    )
    rows: dict[str, int] = field(default_factory=lambda: {"runs": 0, "grades": 0})
    last: Head = field(default_factory=Head)
    waiting: dict[str, int] = field(default_factory=dict)  # run → its entry, not replaced yet
    prunings: dict[int, Any] = field(default_factory=dict)  # entry → running hash of what it pruned
    budgets: int = 0
    unsigned: int | None = None  # the first entry without a signature after one with

    def check(self) -> None:
        """Walk through the ledger, then look for rows without an entry."""
        for batch in raw_batches(self.connection, select_raw(ledger)):
            numbers = [row["seq"] for row in batch]
            stored = {"runs": self._runs(numbers), "grades": self._grades(numbers)}
            for entry in batch:
                self._check_entry(entry, stored)
        for name, number in self.waiting.items():
            self._report(f"run {name!r} (entry {number}), which waited for a person, was removed")
        for number in self.prunings:
            self._report(f"entry {number} of the ledger, which says what was pruned, was removed")
        self._check_unknown_rows()
        self.budgets, problems = check_budgets(self.connection, self.key)
        for problem in problems:
            self._report(problem)
        if self.anchor is not None:
            self._report(
                f"no entry of the ledger has the anchor {self.anchor.hex()}: "
                "its end was cut off, or all were made anew"
            )
        if self.key and not self.tally["signed"]:
            self._report("no entry of the ledger is signed with this key")
        elif self.key and self.unsigned:
            self._report(f"entry {self.unsigned} of the ledger is not signed, though entries before it are")

    def result(self) -> Verification:
        """Return the counts and problems."""
        return Verification(
            **self.tally,
            **self.rows,
            budgets=self.budgets,
            last=self.last.seq,
            head=str(self.last),
            count=self.count,
            problems=tuple(self.problems),
        )

    def _report(self, problem: str) -> None:
        self.count += 1
        if len(self.problems) < _MAX_NAMED:
            self.problems.append(problem)

    def _check_entry(
        self, entry: Mapping[str, Any], stored: Mapping[str, Mapping[int, tuple[str, bytes]]]
    ) -> None:
        number, kind, name = entry["seq"], entry["kind"], entry["run"]
        self.tally["entries"] += 1
        self._check_link(entry)
        if kind == "prune":
            digest = self.prunings.pop(number, hashlib.sha256())
            if digest.digest() != _bytes(entry["body"]):
                self._report(f"what entry {number} of the ledger pruned is not what is marked as pruned")
            return
        if kind in ("run", "waiting") and name in self.waiting:
            del self.waiting[name]
            self.tally["replaced"] += 1
        table = "grades" if kind == "grade" else "runs"
        row = stored[table].get(number)
        if entry["pruned"] is not None:
            self.tally["pruned"] += 1
            add_pruned(self.prunings.setdefault(entry["pruned"], hashlib.sha256()), number)
        elif row is None and kind == "waiting":
            self.waiting[name] = number
        else:
            self._compare(entry, row, table)

    def _compare(self, entry: Mapping[str, Any], row: tuple[str, bytes] | None, table: str) -> None:
        """Compare the entry of a run or grade with the name and hash of the row that has its number."""
        number, name = entry["seq"], entry["run"]
        what = f"run {name!r}" if table == "runs" else f"a grade of run {name!r}"
        self.rows[table] += row is not None
        if row is None or row[0] != name:
            moved = self._number_of(name) if table == "runs" else None
            problem = "was removed" if moved is None else f"was reordered: it stands at {moved}"
            self._report(f"{what} (entry {number}) {problem}")
        elif row[1] != _bytes(entry["body"]):
            self._report(f"{what} (entry {number}) was edited")

    def _check_link(self, entry: Mapping[str, Any]) -> None:
        """Check the link and the signature of an entry."""
        number, stored = entry["seq"], _bytes(entry["link"])
        content = PendingEntry(entry["kind"], entry["run"], _bytes(entry["body"]), entry["note"])
        if link(self.last.link, number, content) != stored:
            self._report(
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
            self._report(f"the signature of entry {number} of the ledger is not by this key")

    def _number_of(self, name: str) -> int | None:
        return self.connection.execute(select(runs.c.seq).where(runs.c.run == name)).scalar()

    def _runs(self, numbers: Sequence[int]) -> dict[int, tuple[str, bytes]]:
        """Return the names and hashes of the runs with these numbers."""
        rows = self._rows(select_raw(runs).where(column("seq").in_(numbers)))
        return {
            stored.run["seq"]: (stored.run["run"], hash_run(stored))
            for stored in raw_rows(self.connection, rows)
        }

    def _grades(self, numbers: Sequence[int]) -> dict[int, tuple[str, bytes]]:
        rows = self._rows(select_raw(grades).where(column("seq").in_(numbers)))
        return {row["seq"]: (row["run"], hash_grade(row)) for row in rows}

    def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        return [dict(row) for row in self.connection.execute(query).mappings()]

    def _check_unknown_rows(self) -> None:
        """Report rows that have no entry in the ledger."""
        for table, kinds in ((runs, ("run", "waiting")), (grades, ("grade",))):
            known = select(ledger.c.seq).where(ledger.c.kind.in_(kinds), ledger.c.pruned.is_(None))
            query = select(table.c.seq, table.c.run).where(table.c.seq.not_in(known)).order_by(table.c.seq)
            for row in self.connection.execute(query):
                self._report(
                    f"{table.name} has run {row.run!r} at {row.seq}, which no entry of the ledger knows"
                )
        for table in (steps, calls, grades):
            orphans = select(table.c.run).where(table.c.run.not_in(select(runs.c.run))).distinct()
            for name in self.connection.execute(orphans).scalars():
                self._report(f"{table.name} has rows of run {name!r}, which does not exist")


def _bytes(value: object) -> bytes:
    """Return a stored hash as bytes; in an edited ledger it may be any value."""
    return bytes(value) if isinstance(value, bytes | memoryview) else repr(value).encode()
