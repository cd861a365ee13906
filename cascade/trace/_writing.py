"""Writes runs: one thread commits all that are waiting in one transaction, with their ledger entries."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cascade._fork import forget_after_fork
from cascade.trace._ledger import PendingEntry, append_entries, entry_kind, hash_run, lock_ledger
from cascade.trace._rows import RunRows, insert_raw
from cascade.trace._tables import calls, runs, steps

_MAX_GROUP = 256  # items in one commit
_INSERTS = {table.name: insert_raw(table) for table in (runs, steps, calls)}

T = TypeVar("T")


class BatchWriter(Generic[T]):
    """Passes items to a function on its own thread, in order, with all that are waiting in one call.

    Args:
        name: the thread's name.
        write: takes a list of items; must not raise.
    """

    def __init__(self, name: str, write: Callable[[list[T]], None]) -> None:
        self._name, self._write = name, write
        self._closed = False
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[T | None] = (
            queue.SimpleQueue()
        )  # the parent writes what is in the old one
        self._thread: threading.Thread | None = None

    def put(self, item: T) -> bool:
        """Enqueue `item`; return False if the writer is closed."""
        with self._lock:
            if self._closed:
                return False
            if self._thread is None:
                # A daemon, so that an unclosed writer does not keep the process alive; atexit drains it.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._queue.put(item)
        return True

    def close(self) -> None:
        """Write what is queued, then stop. May be called more than once."""
        with self._lock:
            first, self._closed = not self._closed, True
        if self._thread is not None:
            if first:
                self._queue.put(None)
            self._thread.join()
            atexit.unregister(self.close)

    def _work(self) -> None:
        last = False
        while not last:
            group = [self._queue.get()]
            while len(group) < _MAX_GROUP and not self._queue.empty():
                group.append(self._queue.get())
            last = group[-1] is None  # close() enqueues None, and nothing follows it
            items = [item for item in group if item is not None]
            if items:
                self._write(items)


def commit_runs(
    engine: Engine, group: list[RunRows], *, resumed: bool = False, key: bytes | None = None
) -> Exception | None:
    """Insert `group` in one transaction and return None, or the error; then nothing was stored.

    Args:
        engine: of the trace database.
        group: the runs.
        resumed: whether they replace runs of the same names that waited for a person.
        key: signs the ledger entries.
    """
    try:
        with engine.begin() as connection:
            lock_ledger(connection)
            if resumed:
                names = [rows.run["run"] for rows in group]
                connection.execute(delete(runs).where(runs.c.run.in_(names), runs.c.status == "waiting"))
            insert_runs(connection, group, key)
    except Exception as error:  # noqa: BLE001 - it belongs to the callers, not to this thread
        if isinstance(error, OperationalError):
            engine.dispose()  # the next group starts with a new connection
        return error
    return None


def insert_runs(connection: Connection, group: list[RunRows], key: bytes | None) -> None:
    """Insert runs and their ledger entries; the transaction must hold the ledger's lock."""
    entries = [
        PendingEntry(entry_kind(rows.run["status"]), rows.run["run"], hash_run(rows)) for rows in group
    ]
    numbers = append_entries(connection, entries, key)
    tables = (
        ("runs", [rows.run | {"seq": seq} for rows, seq in zip(group, numbers, strict=True)]),
        ("steps", [row for rows in group for row in rows.steps]),
        ("calls", [row for rows in group for row in rows.calls]),
    )
    for name, items in tables:
        if items:
            connection.execute(_INSERTS[name], items)


def is_stored(engine: Engine, run: str) -> bool:
    """Return whether `run` is in the database; False if the database cannot be read."""
    try:
        with engine.connect() as connection:
            return connection.execute(select(runs.c.seq).where(runs.c.run == run)).first() is not None
    except SQLAlchemyError:
        return False  # the caller reports the first error
