"""Where runs wait for a person: in the trace database, so that they outlive the process.

LangGraph's savers for async code belong to one event loop; a cascade serves several. So the synchronous ones
are used, in threads. A run's checkpoint holds its request as it is, whatever `store_text` says (it could not
go on otherwise), and is deleted when the run has its answer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from cascade._fork import forget_after_fork
from cascade.errors import TraceError
from cascade.trace.database import (
    BUSY_SECONDS,
    display_url,
    dispose_before_fork,
    keep_database_private,
    parse_url,
    sqlite_path,
    using_database,
)

T = TypeVar("T")
_Opened = tuple[BaseCheckpointSaver[Any], Callable[[], object]]


class Checkpoints(BaseCheckpointSaver[Any]):
    """A saver for every event loop and thread, on top of a synchronous one.

    Args:
        connect: opens the synchronous saver, and returns it with what closes it; called again after a fork.
    """

    def __init__(self, connect: Callable[[], _Opened]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        with using_database():
            self._opened: _Opened | None = connect()
            super().__init__(serde=self._opened[0].serde)
        dispose_before_fork(self)
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        self._lock = threading.Lock()

    def dispose(self) -> None:
        """Close the connection; the next call opens it again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1]()

    def close(self) -> None:
        """Close the connection."""
        self.dispose()

    def _use(self, work: Callable[[BaseCheckpointSaver[Any]], T]) -> T:
        with using_database():
            with self._lock:
                if self._opened is None:
                    self._opened = self._connect()
            return work(self._opened[0])

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See LangGraph's `BaseCheckpointSaver`, for all methods."""
        return self._use(lambda saver: saver.get_tuple(config))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint."""
        return self._use(lambda saver: saver.put(config, checkpoint, metadata, new))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a node wrote before its step ended."""
        self._use(lambda saver: saver.put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Forget a run."""
        self._use(lambda saver: saver.delete_thread(thread_id))

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return the version after `current`."""
        return self._use(lambda saver: saver.get_next_version(current, channel))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        """Yield the checkpoints of a run."""
        listed = partial(self._use, lambda saver: list(saver.list(config, **options)))
        for checkpoint in await asyncio.to_thread(listed):
            yield checkpoint


def open_checkpoints(url: str) -> Checkpoints:
    """Return the saver in the trace database at `url`.

    Raises:
        TraceError: it cannot be opened, or is neither SQLite nor Postgres.
    """
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    serde = JsonPlusSerializer(allowed_msgpack_modules=[])  # the state is plain JSON, nothing else is loaded
    try:
        if path is not None:
            return Checkpoints(partial(_sqlite, path, serde))
        if parsed.get_backend_name() == "postgresql":
            conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
            return Checkpoints(partial(_postgres, conninfo, serde))
    except Exception as error:
        raise TraceError(f"trace database {display_url(parsed)}: runs cannot wait in it: {error}") from error
    raise TraceError(
        f"trace database {display_url(parsed)}: runs that wait for a person need SQLite or Postgres"
    )


def _sqlite(path: Path, serde: JsonPlusSerializer) -> _Opened:
    keep_database_private(path)
    connection = sqlite3.connect(str(path), timeout=BUSY_SECONDS, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")  # no texts in free pages
    saver = SqliteSaver(connection, serde=serde)
    saver.setup()
    return saver, connection.close


def _postgres(conninfo: str, serde: JsonPlusSerializer) -> _Opened:
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import ConnectionPool

    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: Any = ConnectionPool(conninfo, min_size=1, max_size=4, kwargs=settings, open=True)
    pool.wait(timeout=BUSY_SECONDS)
    saver = PostgresSaver(pool, serde=serde)
    saver.setup()
    return saver, pool.close
