"""Opens the trace database, and says in plain words why opening, reading or writing it failed."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from cascade._fork import ForkGate
from cascade.errors import TraceError
from cascade.extras import install_command
from cascade.files import keep_private
from cascade.trace._fulltext import create_index
from cascade.trace._tables import SCHEMA_VERSION, metadata, schema_info

BUSY_SECONDS = 10.0  # how long a connection waits while another process writes

# PostgreSQL's advisory lock for creating or changing the tables.
_LOCK = 0x63617363616465

_ELSEWHERE = "or choose another --trace-db"
_LOCKED = ("another process has locked it", "end that process, or wait until it is done")
_DENIED = ("it is read-only", f"make it and its folder writable, {_ELSEWHERE}")
# SQLite's primary result codes → cause and fix.
_CAUSES = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space; what is stored already is safe"),
    sqlite3.SQLITE_READONLY: _DENIED,
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "make sure that its folder exists and is writable"),
    sqlite3.SQLITE_NOTADB: ("it is not a SQLite database", f"move that file away, {_ELSEWHERE}"),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "save what `sqlite3 FILE .recover` finds, then move it away"),
    sqlite3.SQLITE_IOERR: ("the disk failed", "look for free space, and for the disk's errors (`dmesg`)"),
}


def default_path() -> Path:
    """Return the default file for traces, in the user's data folder."""
    from platformdirs import user_data_path

    return user_data_path("cascade", appauthor=False) / "traces.db"


def parse_url(url: str) -> URL:
    """Return `url`, a SQLAlchemy URL or the path of a SQLite file, as a SQLAlchemy URL.

    Raises:
        TraceError: it is neither, or a database in memory, which would keep nothing.
    """
    if not url.strip():
        raise TraceError("trace database: '' is no place; give a file's path or a SQLAlchemy URL")
    try:
        if "://" not in url:
            return URL.create("sqlite", database=str(Path(url).expanduser()))
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise TraceError(
            f"trace database {url!r}: {error}; give a file's path or a URL such as sqlite:///traces.db"
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise TraceError(
            f"trace database {display_url(parsed)}: {parsed.get_backend_name()!r} is not supported; "
            "give a file's path (SQLite) or a URL postgresql+psycopg://…"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise TraceError(f"trace database {url!r} is in memory and would keep nothing; give a file's path")
    return parsed


def sqlite_path(url: URL) -> Path | None:
    """Return the file of a SQLite `url`, or None for any other database."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def display_url(url: URL) -> str:
    """Return the name of the database in messages: the path of its file, or the URL without its password."""
    path = sqlite_path(url)
    return url.render_as_string(hide_password=True) if path is None else str(path)


def open_engine(url: URL, *, create: bool) -> Engine | None:
    """Return an engine for the database at `url`, which can write if `create`, else only read.

    Returns None if there is nothing to read: no file, or no tables in it yet.

    Raises:
        TraceError: the database cannot be opened, belongs to another program, or has another version.
    """
    path = sqlite_path(url)
    if path is not None and not create and not path.exists():
        return None
    if path is not None and create:
        _check_folder(path)
        keep_database_private(path)
    try:
        engine = _sqlite(url, path, create=create) if path is not None else _engine(url)
    except ImportError as error:
        raise TraceError(
            f"trace database {display_url(url)}: {error}; `{install_command('postgres')}`, "
            "or install that driver"
        ) from error
    try:
        with engine.connect() as connection:
            ready = (_ready_to_write if create else _ready_to_read)(connection, url)
            connection.commit()
    except SQLAlchemyError as error:
        engine.dispose()
        raise trace_error(error, url) from error
    except TraceError:
        engine.dispose()
        raise
    if not ready:
        engine.dispose()
    return engine if ready else None


def _engine(url: URL) -> Engine:
    # Errors must not show the texts of a run.
    return create_engine(url, hide_parameters=True, poolclass=_Pool)


class Disposable(Protocol):
    """Has connections, and opens new ones when it needs them."""

    def dispose(self) -> object:
        """Close those that nobody uses."""
        ...


# Connections do not cross a fork: all are closed before it, and parent and child open new ones. A child that
# opens a SQLite file which its parent has open takes no locks of its own, and would lose what it commits
# (https://www.sqlite.org/howtocorrupt.html, section 2.6).
_disposable: weakref.WeakSet[Any] = weakref.WeakSet()
_gate = ForkGate(lambda: [thing.dispose() for thing in list(_disposable)])


def dispose_before_fork(thing: Disposable) -> None:
    """Dispose of `thing` before this process forks, as long as it lives; it connects `using_database`."""
    _disposable.add(thing)


@contextmanager
def using_database() -> Iterator[None]:
    """Keep this process from being forked meanwhile.

    Raises:
        TraceError: this process was forked while its parent used the database for too long.
    """
    _enter()
    try:
        yield
    finally:
        _gate.leave()


def _enter() -> None:
    if not _gate.clean:
        raise TraceError(
            f"process {os.getpid()} was forked while its parent used the trace database; load the cascade "
            "after the fork, or fork while no run is at work"
        )
    _gate.enter()


class _Pool(QueuePool):
    """Gives out connections; a fork waits until they are back."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        dispose_before_fork(self)

    def _do_get(self) -> ConnectionPoolEntry:
        _enter()
        try:
            return super()._do_get()
        except BaseException:
            _gate.leave()
            raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._do_return_conn(record)
        finally:
            _gate.leave()


def keep_database_private(path: Path) -> None:
    """Make the SQLite file at `path` with SQLite's files beside it the owner's alone, existing ones, too.

    SQLite gives the files that it makes later the permissions of the database. What cannot be made is left to
    SQLite, whose error says more.
    """
    with suppress(OSError):
        keep_private(path, "-wal", "-shm", "-journal")


def _check_folder(path: Path) -> None:
    folder = path.absolute().parent
    if path == default_path():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            message = f"trace database {path}: its folder cannot be made ({error}); choose another --trace-db"
            raise TraceError(message) from error
    if not folder.is_dir():
        raise TraceError(f"trace database {path}: the folder {folder} does not exist; `mkdir -p {folder}`")


def _sqlite(url: URL, path: Path, *, create: bool) -> Engine:
    query: dict[str, Any] = {"timeout": str(BUSY_SECONDS)} | dict(url.query)
    if not create:
        writable = os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)
        query |= {"uri": "true", "mode": "rw" if writable else "ro"}
        if not writable and not path.with_name(path.name + "-wal").exists():
            query["immutable"] = "1"  # WAL needs a writable folder; nobody can be writing here
        url = url.set(database=f"file:{quote(str(path.absolute()))}")
    engine = _engine(url.set(query=query))
    engine.dialect.statement_compiler = _HintCompiler

    @event.listens_for(engine, "connect")
    def pragmas(connection: sqlite3.Connection, _: object) -> None:
        if not create:
            connection.execute("PRAGMA query_only = ON")
            return
        connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode only FULL syncs the log at each commit; NORMAL may lose the last commits to a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


class _HintCompiler(SQLiteCompiler):
    """Renders `with_hint`, such as INDEXED BY, which SQLAlchemy leaves out for SQLite."""

    def get_from_hint_text(self, table: object, text: str | None) -> str | None:
        return text


def _ready_to_write(connection: Connection, url: URL) -> bool:
    """Create the tables, or upgrade those of an older cascade, in one transaction."""
    lock_tables(connection)
    version = _version(connection, url)
    if version is None:
        metadata.create_all(connection)
        create_index(connection)
        connection.execute(insert(schema_info).values(version=SCHEMA_VERSION))
    elif version < SCHEMA_VERSION:
        from cascade.trace.migrations import upgrade

        upgrade(connection, version)
    return True


def _ready_to_read(connection: Connection, url: URL) -> bool:
    version = _version(connection, url)
    if version is not None and version < SCHEMA_VERSION:
        raise TraceError(
            f"trace database {display_url(url)} has schema version {version}; "
            f"this cascade reads {SCHEMA_VERSION}; `cascade trace upgrade` brings it up to date"
        )
    return version is not None


def _version(connection: Connection, url: URL) -> int | None:
    """Return the version of the tables, or None if there are none.

    Raises:
        TraceError: the tables belong to another program or a newer cascade.
    """
    names = set(inspect(connection).get_table_names())
    if schema_info.name not in names:
        if "schema_info" in names and "runs" in names:
            raise TraceError(
                f"trace database {display_url(url)} is from a development version before 0.1.0; "
                f"move that file away, {_ELSEWHERE}"
            )
        if taken := names & set(metadata.tables):
            raise TraceError(
                f"trace database {display_url(url)}: its table {min(taken)!r} is another program's; "
                "choose another --trace-db"
            )
        return None
    version = connection.execute(select(schema_info.c.version)).scalar_one_or_none()
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise TraceError(
            f"trace database {display_url(url)} has schema version {version}; "
            f"this cascade reads {SCHEMA_VERSION}; install the cascade that wrote it, {_ELSEWHERE}"
        )
    return version


@contextmanager
def read_snapshot(url: str) -> Iterator[Connection | None]:
    """Yield a connection to a snapshot that later writes do not change; None if there is no database.

    Raises:
        TraceError: the database cannot be read.
    """
    parsed = parse_url(url)
    engine = open_engine(parsed, create=False)
    if engine is None:
        yield None
        return
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")  # in place
            yield connection
    except SQLAlchemyError as error:
        raise trace_error(error, parsed) from error
    finally:
        engine.dispose()


def trace_error(error: SQLAlchemyError, url: URL) -> TraceError:
    """Return `error` as a TraceError that names the database, the cause and the fix."""
    original = getattr(error, "orig", None) or error
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _CAUSES:
        cause, fix = _CAUSES[code & 0xFF]
        return TraceError(f"trace database {display_url(url)}: {cause} ({original}); {fix}")
    return TraceError(f"trace database {display_url(url)}: {original}")


def lock_tables(connection: Connection) -> None:
    """Keep other processes from changing tables until this transaction ends; must be its first statement."""
    sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else f"SELECT pg_advisory_xact_lock({_LOCK})")
