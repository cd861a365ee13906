"""The output file of a batch: a batch that was stopped, however hard, goes on where it was.

Rows are written in the order of the input, one line each, so what is done is a beginning of the input. A note
beside the file (`OUT.progress`) says which batch it belongs to; it goes when the batch is complete. A line is
handed to the system at once, so it outlives the process; it is forced to the disk at least once a second, so
a power cut loses a second of lines, whose rows are then asked again. A torn last line is cut off.
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
from cascade.files import write_whole
from cascade.lab.tables.rows import Row
from cascade.records import Request, Result

SYNC_SECONDS = 1.0


class Output:
    """Lines of a batch, and the rows that an earlier process has written already."""

    def __init__(self, file: BinaryIO, note: Path | None, done: list[dict[str, Any]]) -> None:
        self.done = done
        self._file = file
        self._note = note
        self._synced = time.monotonic()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; it outlives this process from here on."""
        # A lone surrogate, which a model may answer, stays JSON as an escape.
        text = json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace")
        self._file.write(text + b"\n")
        self._file.flush()
        if self._note is not None and time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def finish(self) -> None:
        """Force every line to the disk; the batch is complete."""
        if self._note is not None:
            self._sync()
            self._note.unlink(missing_ok=True)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


@contextlib.contextmanager
def open_output(path: Path, rows: Sequence[Row], batch: str, *, restart: bool) -> Iterator[Output]:
    """Open `path` for the rows of a batch, after those that are in it already.

    Args:
        path: a file, or a device or pipe, which cannot be continued.
        rows: the input.
        batch: what was asked of which graph; only the same batch is continued.
        restart: begin anew, whatever is there.

    Raises:
        RequestError: the file cannot be written, another process writes it, or it is another batch's.
    """
    if path.exists() and not path.is_file():
        with _opened(path, "wb") as file:
            yield Output(file, None, [])
        return
    note, key = path.with_name(f"{path.name}.progress"), _key(rows, batch)
    known = None if restart else _read(note)
    if known is not None and known != key:
        raise RequestError(
            f"{path} holds the beginning of another batch ({known.get('batch')}, {known.get('rows')} rows; "
            f"this one: {key['batch']}, {key['rows']} rows); run that one again to complete it, give another "
            "--output, or --restart to begin anew"
        )
    with _opened(path, "ab") as file:
        _lock(file, path)
        done = [] if known is None else _repair(path, rows)
        if known is None:
            file.truncate(0)
            write_whole(json.dumps(key) + "\n", note, "progress")
        yield Output(file, note, done)


def written(row: Row, values: Mapping[str, Any]) -> Result:
    """Return what is known of a result from its output row."""
    known = {name: values[name] for name in values if name not in ("id", "tool_calls")}
    return Result(graph="", request=Request(text=row.text), **known)


def _opened(path: Path, mode: str) -> BinaryIO:
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


def _read(note: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _repair(path: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows that are in the file, and cut off what follows the last whole one."""
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
