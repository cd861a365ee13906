"""The output file of a batch. A batch that was stopped, however abruptly, continues where it stopped.

Rows are written in the order of the input, one line each, so the finished rows are a prefix of the input. A
note beside the file (`OUT.progress`) says which batch the file belongs to; it is removed when the batch is
complete. Each line is flushed at once and so outlives the process. It is synced to disk at least once a
second: a power cut loses the lines of a second, and their rows are asked again. A torn last line is cut off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cascade.errors import RequestError
from cascade.explain.formatting import json_text
from cascade.files import write_whole
from cascade.lab.tables.cells import SUFFIXES
from cascade.lab.tables.rows import Row
from cascade.records import Request, Result

SYNC_SECONDS = 1.0


class Output:
    """The open output file of a batch, and the rows that an earlier process has already written to it."""

    def __init__(self, file: BinaryIO, note: Path | None, done: list[dict[str, Any]]) -> None:
        self.done = done
        self._file = file
        self._note = note
        self._synced = time.monotonic()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. It survives the end of this process."""
        self._file.write(json_text(row).encode() + b"\n")
        self._file.flush()
        if self._note is not None and time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def finish(self) -> None:
        """Sync every line to disk and mark the batch as complete."""
        if self._note is not None:
            self._sync()
            self._note.unlink(missing_ok=True)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


@contextlib.contextmanager
def open_output(path: Path, rows: Sequence[Row], batch: str, *, restart: bool) -> Iterator[Output]:
    """Open `path` to append the rows of a batch to those that are already in it.

    Args:
        path: a file; or a device or pipe, which cannot be continued.
        rows: the input.
        batch: the graph's version and options; only the same batch is continued.
        restart: start over, whatever the file holds.

    Raises:
        RequestError: the file cannot be written, another process is writing it, it holds another batch, or
            its name says that it is no JSONL.
    """
    if path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".jsonl":
        raise RequestError(f"{path}: result rows are JSON, one a line; give a .jsonl file for --output")
    if path.exists() and not path.is_file():
        with _open(path, "wb") as file:
            yield Output(file, None, [])
        return
    note, key = path.with_name(f"{path.name}.progress"), _key(rows, batch)
    earlier = None if restart else _read_note(note)
    if earlier is not None and earlier != key:
        raise RequestError(
            f"{path} holds the beginning of another batch "
            f"({earlier.get('batch')}, {earlier.get('rows')} rows; "
            f"this one: {key['batch']}, {key['rows']} rows); run that one again to complete it, give another "
            "--output, or --restart to begin anew"
        )
    with _open(path, "ab") as file:
        _lock(file, path)
        done = [] if earlier is None else _repair(path, rows)
        if earlier is None:
            file.truncate(0)
            write_whole(json.dumps(key) + "\n", note, "progress")
        yield Output(file, note, done)


def restored_result(row: Row, values: Mapping[str, Any]) -> Result:
    """Return a result as far as its output row tells it."""
    fields = {name: values[name] for name in values if name not in ("id", "tool_calls", "label", "right")}
    return Result(graph="", request=Request(text=row.text), **fields)


def _open(path: Path, mode: str) -> BinaryIO:
    try:
        return path.open(mode)  # type: ignore[return-value]  # both modes are binary
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}; give a writable file for --output") from None


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RequestError(f"{path}: another process is writing it; wait, or give another --output") from None


def _key(rows: Sequence[Row], batch: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode())
    return {"batch": batch, "rows": len(rows), "sha256": digest.hexdigest()}


def _read_note(note: Path) -> dict[str, Any] | None:
    try:
        key = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    return key if isinstance(key, dict) else None


def _repair(path: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows that are in the file, and cut off whatever follows the last complete one."""
    done: list[dict[str, Any]] = []
    end = 0
    with path.open("rb") as file:
        for row, line in zip(rows, file, strict=False):
            try:
                values = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                break
            if not isinstance(values, dict) or values.get("id") != row.id:
                break
            done.append(values)
            end += len(line)
    os.truncate(path, end)
    return done
