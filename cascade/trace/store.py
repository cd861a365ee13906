"""The trace store: every run, kept for good. SQLite by default, any SQLAlchemy database by URL.

One thread writes. It takes all runs that wait and commits them together, so that sixteen callers pay for
one sync of the disk, not sixteen; nobody is told that a run is stored before that commit has returned.
SQLite runs in WAL mode with synchronous=FULL: the log is synced before a commit returns, and replayed
after a crash (https://www.sqlite.org/wal.html), so losing power loses no acknowledged run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from cascade.errors import TraceError, UnknownRunError
from cascade.records import Result
from cascade.trace.commit import commit, is_stored
from cascade.trace.database import default_path, failure, open_engine, parse_url, place
from cascade.trace.grades import Grade, add_grade, checked_grade, read_grades
from cascade.trace.ledger import read_key
from cascade.trace.overview import WINDOW, Overview, read_overview
from cascade.trace.queries import RunFilter, RunSummary, find_run, list_runs, read_run, values_of
from cascade.trace.redact import redact
from cascade.trace.rows import Rows, to_rows
from cascade.trace.writer import Writer

__all__ = ["Grade", "RunFilter", "RunSummary", "TraceStore", "default_url"]

_Item = tuple[Rows, "Future[None]"]


def default_url() -> str:
    """Return where traces go: CASCADE_TRACE_DB, or `traces.db` in the user's data folder."""
    return os.environ.get("CASCADE_TRACE_DB") or str(default_path())


class TraceStore:
    """Writes and reads runs; every method may be called from any thread.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file, which is made if it is missing.
        store_text: False stores hashes in place of texts, see `cascade.trace.redact`.
        create: False only reads: no file is made, and where none is there are no runs.
        key: what entries of the ledger are signed with; default: see `cascade.trace.ledger.read_key`.

    Raises:
        TraceError: the database cannot be opened; the message names it, the cause and the fix.
    """

    def __init__(
        self, url: str, *, store_text: bool = True, create: bool = True, key: bytes | None = None
    ) -> None:
        self._url = parse_url(url)
        self._store_text = store_text
        self._create = create
        self._key = read_key() if key is None else key
        self._engine = open_engine(self._url, create=create)
        self._writer: Writer[_Item] = Writer("cascade-trace", self._store_group)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def location(self) -> str:
        """Where the traces are: the path of the file, or the URL without its password."""
        return place(self._url)

    def write(self, result: Result) -> None:
        """Store `result`; returns when it is durably committed.

        Raises:
            TraceError: it could not be stored. What was stored before is safe, and later writes may work.
        """
        self.submit(result).result()

    def submit(self, result: Result) -> Future[None]:
        """Start storing `result`; the future is done when it is durably committed, or holds a TraceError.

        Runs are stored in the order in which they were submitted. A run that waited for a person is replaced
        by what became of it; any other run id can be used once. The future cannot be cancelled.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        try:
            self._hand_over((self._rows(result), future))
        except TraceError as error:
            future.set_exception(error)
        return future

    def _rows(self, result: Result) -> Rows:
        try:
            rows = to_rows(result if self._store_text else redact(result))
        except (TypeError, ValueError, RecursionError) as error:
            raise TraceError(
                f"run {result.run!r} cannot be stored: {error}; its metadata must be plain JSON"
            ) from error
        return rows.without_nul() if self._url.get_backend_name() == "postgresql" else rows

    def get(self, run: str) -> Result:
        """Return the run called `run`, in full; a beginning of its name is enough if no other run has it.

        Raises:
            UnknownRunError: there is no such run, or several.
            TraceError: the database cannot be read.
        """
        with self._found(run) as (connection, name):
            return read_run(connection, name, self.location)

    def runs(
        self,
        *,
        graph: str | None = None,
        status: str | None = None,
        tier: str | None = None,
        rule: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[RunSummary]:
        """Return summaries of runs, the last stored first.

        Args:
            graph: only runs of this graph: its name, of any version, or `name@digest`.
            status: only runs with this status.
            tier: only runs answered by this tier.
            rule: only runs whose last decision was by this rule.
            limit: at most so many.
            before: only runs stored before this one, to get the next page.

        Raises:
            TraceError: the database cannot be read.
        """
        where = RunFilter(graph=graph, status=status, tier=tier, rule=rule)
        return self.search(where, limit=limit, before=before)

    def search(self, where: RunFilter, *, limit: int = 50, before: str | None = None) -> list[RunSummary]:
        """Return summaries of the runs in `where`, the last stored first; see `runs`.

        Raises:
            TraceError: the database cannot be read.
        """
        with self._connection() as connection:
            return [] if connection is None else list_runs(connection, where, before=before, limit=limit)

    def known(self, column: Literal["graph", "tier"]) -> list[str]:
        """Return the values that the runs have in `column`, sorted, at most 100.

        Raises:
            TraceError: the database cannot be read.
        """
        with self._connection() as connection:
            return [] if connection is None else values_of(connection, column)

    def overview(self, where: RunFilter, *, limit: int = WINDOW) -> Overview:
        """Return what the newest `limit` runs in `where` amount to.

        Raises:
            TraceError: the database cannot be read.
        """
        with self._connection() as connection:
            return Overview() if connection is None else read_overview(connection, where, limit)

    def grade(self, run: str, correct: bool, *, by: str | None = None, note: str | None = None) -> Grade:
        """Say whether the answer of `run` (or, if it gave none, its draft) was right; return the grade.

        A run may be graded again: the newest grade counts, and all are kept. Where this store was opened to
        read only, the file is opened for writing as long as it takes.

        Raises:
            UnknownRunError: there is no such run, or several.
            GradeError: the run has nothing to grade, or `by` or `note` is too long.
            TraceError: the grade could not be stored.
        """
        with self._found(run) as (_, name):
            grade = checked_grade(Grade(run=name, correct=correct, by=by, note=note))
        engine = self._engine if self._create else open_engine(self._url, create=True)
        if engine is None:
            raise TraceError(f"trace database {self.location} is gone; nothing was stored")
        try:
            add_grade(engine, grade, self._key)
        except SQLAlchemyError as error:
            raise failure(error, self._url) from error
        finally:
            if engine is not self._engine:
                engine.dispose()
        return grade

    def grades(self, run: str) -> tuple[Grade, ...]:
        """Return the grades of `run`, the newest, which counts, last.

        Raises:
            UnknownRunError: there is no such run, or several.
            TraceError: the database cannot be read.
        """
        with self._found(run) as (connection, name):
            return read_grades(connection, name)

    def close(self) -> None:
        """Store what was submitted, then release the database. A closed store takes no more runs."""
        self._writer.close()
        if self._engine is not None:
            self._engine.dispose()

    @contextmanager
    def _found(self, run: str) -> Iterator[tuple[Connection, str]]:
        """Give a connection to read with, and the full name of `run`."""
        with self._connection() as connection:
            if connection is None:
                raise UnknownRunError(f"run {run!r} is not in {self.location}; it has no runs yet")
            yield connection, find_run(connection, run, self.location)

    @contextmanager
    def _connection(self) -> Iterator[Connection | None]:
        """Give a connection to read with, or None while there is nothing to read."""
        if self._engine is None:
            self._engine = open_engine(self._url, create=False)
        if self._engine is None:
            yield None
            return
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise failure(error, self._url) from error

    def _hand_over(self, item: _Item) -> None:
        if not self._create or self._engine is None:
            raise TraceError(f"trace database {self.location}: opened to read only; open it with create=True")
        if not self._writer.put(item):
            raise TraceError(f"trace database {self.location}: this store is closed; open a new TraceStore")

    def _store_group(self, group: list[_Item]) -> None:
        if self._engine is not None:
            self._store(self._engine, group)

    def _store(self, engine: Engine, group: list[_Item]) -> None:
        error = commit(engine, [rows for rows, _ in group], key=self._key)
        if error is not None and len(group) > 1 and not isinstance(error, OperationalError):
            # The database works, so one of the runs is at fault: only that one may fail.
            for item in group:
                self._store(engine, [item])
            return
        if isinstance(error, IntegrityError):
            error = commit(engine, [group[0][0]], resumed=True, key=self._key)
        for rows, future in group:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(self._reason(engine, error, rows.run["run"]))

    def _reason(self, engine: Engine, error: Exception, run: str) -> TraceError:
        if isinstance(error, IntegrityError) and is_stored(engine, run):
            return TraceError(f"run {run!r} is already in {self.location}; each run needs an id of its own")
        if isinstance(error, DBAPIError):
            reason = failure(error, self._url)
        else:
            cause = getattr(error, "orig", None) or error
            reason = TraceError(f"run {run!r} cannot be stored: {cause}; its metadata must be plain JSON")
        reason.__cause__ = error
        return reason
