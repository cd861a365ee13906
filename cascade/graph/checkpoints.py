"""Where runs wait for a person: in the trace database, so that they outlive the process.

LangGraph's savers for async code belong to one event loop; a cascade serves several. So the synchronous ones
are used, in threads. A run's checkpoint holds its request as it is, whatever `store_text` says (it could not
go on otherwise), and is deleted when the run has its answer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

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

from cascade.errors import TraceError
from cascade.trace.database import BUSY_SECONDS, display_url, parse_url, sqlite_path


class Checkpoints(BaseCheckpointSaver[Any]):
    """A saver for every event loop and thread, on top of a synchronous one."""

    def __init__(self, saver: BaseCheckpointSaver[Any], close: Callable[[], object]) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self.close = close

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See LangGraph's `BaseCheckpointSaver`, for all methods."""
        return self._saver.get_tuple(config)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint."""
        return self._saver.put(config, checkpoint, metadata, new)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a node wrote before its step ended."""
        self._saver.put_writes(config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """Forget a run."""
        self._saver.delete_thread(thread_id)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return the version after `current`."""
        return self._saver.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self._saver.get_tuple, config)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await asyncio.to_thread(self._saver.put, config, checkpoint, metadata, new)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await asyncio.to_thread(self._saver.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self._saver.delete_thread, thread_id)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        """Yield the checkpoints of a run."""
        for checkpoint in await asyncio.to_thread(lambda: list(self._saver.list(config, **options))):
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
            connection = sqlite3.connect(str(path), timeout=BUSY_SECONDS, check_same_thread=False)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")  # no texts in free pages
            saver = SqliteSaver(connection, serde=serde)
            saver.setup()
            return Checkpoints(saver, connection.close)
        if parsed.get_backend_name() == "postgresql":
            return _postgres(parsed.set(drivername="postgresql").render_as_string(hide_password=False), serde)
    except Exception as error:
        raise TraceError(f"trace database {display_url(parsed)}: runs cannot wait in it: {error}") from error
    raise TraceError(
        f"trace database {display_url(parsed)}: runs that wait for a person need SQLite or Postgres"
    )


def _postgres(conninfo: str, serde: JsonPlusSerializer) -> Checkpoints:
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import ConnectionPool

    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: Any = ConnectionPool(conninfo, min_size=1, max_size=4, kwargs=settings, open=True)
    pool.wait(timeout=BUSY_SECONDS)
    saver = PostgresSaver(pool, serde=serde)
    saver.setup()
    return Checkpoints(saver, pool.close)
