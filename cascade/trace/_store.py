"""The trace store: it keeps every run. SQLite by default, PostgreSQL by URL.

One thread writes. It commits all waiting runs together, so that sixteen callers pay for one sync of the disk
instead of sixteen. A run is reported as stored only after that commit has returned. SQLite runs in WAL mode
with synchronous=FULL: the log is synced before a commit returns, and replayed after a crash
(https://www.sqlite.org/wal.html), so a power failure loses no acknowledged run.
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

from cascade.environment import TRACE_DB
from cascade.errors import TraceError, UnknownRunError
from cascade.policy.costs import PricedCall
from cascade.records import Result
from cascade.trace._filters import RunFilter
from cascade.trace._grades import Grade, add_grade, checked_grade, read_grades
from cascade.trace._ledger import read_key
from cascade.trace._overview import OVERVIEW_WINDOW, Overview, baseline_calls, read_overview
from cascade.trace._queries import RunSummary, find_run, graded_runs, list_runs, read_run, values_of
from cascade.trace._redact import redact
from cascade.trace._rows import RunRows, to_rows
from cascade.trace._writing import BatchWriter, commit_runs, is_stored
from cascade.trace.database import default_path, display_url, open_engine, parse_url, trace_error

_Item = tuple[RunRows, "Future[None]"]


def default_url() -> str:
    """Return the default location of traces: CASCADE_TRACE_DB, or `traces.db` in the user's data folder."""
    return os.environ.get(TRACE_DB) or str(default_path())


class TraceStore:
    """Writes and reads runs; every method may be called from any thread.

    Args:
        url: a SQLAlchemy URL, or the path of a SQLite file, which is created if it is missing.
        store_text: if False, hashes are stored instead of texts; see `cascade.trace.redact`.
        create: if False, the store only reads: no file is created, and a missing file has no runs.
        key: signs the ledger entries; default: see `cascade.trace.read_key`.

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
        self._writer: BatchWriter[_Item] = BatchWriter("cascade-trace", self._store_group)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def location(self) -> str:
        """The path of the database file, or the URL without its password."""
        return display_url(self._url)

    def write(self, result: Result) -> None:
        """Store `result`; return when it is durably committed.

        Raises:
            TraceError: the run could not be stored. Earlier runs are safe, and later writes may succeed.
        """
        self.submit(result).result()

    def submit(self, result: Result) -> Future[None]:
        """Enqueue `result`; the future is done when it is durably committed, or holds a TraceError.

        Runs are stored in the order of submission. A run that waited for a person is replaced by its outcome;
        any other run id can be used only once. The future cannot be cancelled.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        try:
            self._enqueue((self._rows(result), future))
        except TraceError as error:
            future.set_exception(error)
        return future

    def _rows(self, result: Result) -> RunRows:
        try:
            rows = to_rows(result if self._store_text else redact(result))
        except (TypeError, ValueError, RecursionError) as error:
            raise TraceError(
                f"run {result.run!r} cannot be stored: {error}; its metadata must be plain JSON"
            ) from error
        return rows.without_nul() if self._url.get_backend_name() == "postgresql" else rows

    def get(self, run: str) -> Result:
        """Return the full run whose id is `run` or begins with it.

        Raises:
            UnknownRunError: there is no such run, or several.
            TraceError: the database cannot be read.
        """
        with self._resolved(run) as (connection, name):
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
            rule: only runs whose last decision used this rule.
            limit: the maximum number of runs.
            before: only runs stored before this one, for the next page.

        Raises:
            TraceError: the database cannot be read.
        """
        where = RunFilter(graph=graph, status=status, tier=tier, rule=rule)
        return self.search(where, limit=limit, before=before)

    def search(self, where: RunFilter, *, limit: int = 50, before: str | None = None) -> list[RunSummary]:
        """Return summaries of the runs that match `where`, the last stored first; see `runs`.

        Raises:
            TraceError: the database cannot be read.
        """
        with self._connection() as connection:
            return [] if connection is None else list_runs(connection, where, before=before, limit=limit)

    def known(self, column: Literal["graph", "tier"]) -> list[str]:
        """Return up to 100 values of `column` over all runs, sorted.

        Raises:
            TraceError: the database cannot be read.
        """
        with self._connection() as connection:
            return [] if connection is None else values_of(connection, column)

    def overview(self, where: RunFilter, *, limit: int = OVERVIEW_WINDOW) -> Overview:
        """Return figures and drafts of the newest `limit` runs that match `where`.

        Raises:
            TraceError: the database cannot be read.
        """
        with self._connection() as connection:
            return Overview() if connection is None else read_overview(connection, where, limit)

    def baseline_calls(self, graph: str, model: str) -> list[PricedCall]:
        """Return what recorded calls of a baseline model cost in the newest 2,000 runs of `graph` (its name).

        Raises:
            TraceError: the database cannot be read.
        """
        with self._connection() as connection:
            return [] if connection is None else baseline_calls(connection, graph, model)

    def grade(self, run: str, correct: bool, *, by: str | None = None, note: str | None = None) -> Grade:
        """Record whether the answer of `run` (or else its draft) was right; return the grade.

        A run may be graded again: all grades are kept, and the newest counts. A store that only reads opens
        the file for writing just for this.

        Raises:
            UnknownRunError: there is no such run, or several.
            GradeError: the run has nothing to grade, or `by` or `note` is too long.
            TraceError: the grade could not be stored.
        """
        with self._resolved(run) as (_, name):
            grade = checked_grade(Grade(run=name, correct=correct, by=by, note=note))
        engine = self._engine if self._create else open_engine(self._url, create=True)
        if engine is None:
            raise TraceError(f"trace database {self.location} is gone; nothing was stored")
        try:
            add_grade(engine, grade, self._key)
        except SQLAlchemyError as error:
            raise trace_error(error, self._url) from error
        finally:
            if engine is not self._engine:
                engine.dispose()
        return grade

    def grades(self, run: str) -> tuple[Grade, ...]:
        """Return the grades of `run`; the newest, which counts, is last.

        Raises:
            UnknownRunError: there is no such run, or several.
            TraceError: the database cannot be read.
        """
        with self._resolved(run) as (connection, name):
            return read_grades(connection, name)

    def newest_grades(self, where: RunFilter) -> dict[str, bool]:
        """Return run → whether its answer was right, by the newest grade of the runs that match `where`.

        Raises:
            TraceError: the database cannot be read.
        """
        with self._connection() as connection:
            return {} if connection is None else graded_runs(connection, where)

    def close(self) -> None:
        """Store what was submitted, then release the database. A closed store accepts no more runs."""
        self._writer.close()
        if self._engine is not None:
            self._engine.dispose()

    @contextmanager
    def _resolved(self, run: str) -> Iterator[tuple[Connection, str]]:
        """Yield a connection for reading, and the full id of `run`."""
        with self._connection() as connection:
            if connection is None:
                raise UnknownRunError(f"run {run!r} is not in {self.location}; it has no runs yet")
            yield connection, find_run(connection, run, self.location)

    @contextmanager
    def _connection(self) -> Iterator[Connection | None]:
        """Yield a connection for reading, or None while there is nothing to read."""
        if self._engine is None:
            self._engine = open_engine(self._url, create=False)
        if self._engine is None:
            yield None
            return
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise trace_error(error, self._url) from error

    def _enqueue(self, item: _Item) -> None:
        if not self._create or self._engine is None:
            raise TraceError(f"trace database {self.location}: opened to read only; open it with create=True")
        if not self._writer.put(item):
            raise TraceError(f"trace database {self.location}: this store is closed; open a new TraceStore")

    def _store_group(self, group: list[_Item]) -> None:
        if self._engine is not None:
            self._store(self._engine, group)

    def _store(self, engine: Engine, group: list[_Item]) -> None:
        error = commit_runs(engine, [rows for rows, _ in group], key=self._key)
        if error is not None and len(group) > 1 and not isinstance(error, OperationalError):
            # The database works, so one of the runs is at fault; only that one may fail.
            for item in group:
                self._store(engine, [item])
            return
        if isinstance(error, IntegrityError):
            error = commit_runs(engine, [group[0][0]], resumed=True, key=self._key)
        for rows, future in group:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(self._cause(engine, error, rows.run["run"]))

    def _cause(self, engine: Engine, error: Exception, run: str) -> TraceError:
        if isinstance(error, IntegrityError) and is_stored(engine, run):
            return TraceError(f"run {run!r} is already in {self.location}; each run needs an id of its own")
        if isinstance(error, TraceError):
            return error
        if isinstance(error, DBAPIError):
            reason = trace_error(error, self._url)
        else:
            cause = getattr(error, "orig", None) or error
            reason = TraceError(f"run {run!r} cannot be stored: {cause}; its metadata must be plain JSON")
        reason.__cause__ = error
        return reason
