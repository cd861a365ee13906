"""Reading and writing whole files: a reader, or a crash, finds the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cascade.errors import ConfigError
from cascade.records import Record

R = TypeVar("R", bound=Record)


def replace_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write `data` to `path` by way of a draft beside it; folders that are missing are made.

    A `private` file can be read by its owner only, from its first byte on. A link is followed, and a device
    or a pipe, which cannot be replaced, is written to.

    Raises:
        OSError: the file cannot be written; the old one is as it was, and no draft is left.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    draft = path.with_name(f".{path.name[:200]}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)  # another process's, of the same number
        mode = 0o600 if private else 0o666
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold the right to change the file at `path`: read it, make the new one, replace it.

    Others that ask for it wait; readers do not. The lock is on the folder, because the file itself is
    replaced, and ends with the process. The folder is made if it is missing.

    Raises:
        OSError: the folder cannot be made or opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # a folder cannot be locked there
        yield
        return
    import fcntl

    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def keep_private(path: Path, *beside: str) -> None:
    """Make `path`, an empty file if it is missing, readable by its owner alone.

    So are files that exist with one of the endings `beside` (`-wal`). Files of somebody else stay as they
    are, and so do devices and pipes.

    Raises:
        OSError: the file cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    for each in (path, *(path.with_name(path.name + ending) for ending in beside)):
        with contextlib.suppress(OSError):
            if each.is_file() and each.stat().st_mode & 0o077:
                each.chmod(0o600)


def read_record(record: type[R], path: str | Path, kind: str, redo: str) -> R:
    """Read a JSON file as a `record`; `kind` names it in errors, `redo` says how to make it anew.

    Raises:
        ConfigError: the file is missing, is not JSON, or is not a valid record.
    """
    path = Path(path)
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: {kind} file is missing; {redo}") from None
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, item['loc'])) or kind}: {item['msg']}; {redo}"
            for item in error.errors(include_url=False)
        ]
        raise ConfigError(*problems) from error
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise ConfigError(f"{path}: {kind} file cannot be read: {error}") from error


def write_whole(text: str, path: str | Path, kind: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        replace_file(Path(path), text.encode())
    except OSError as error:
        raise ConfigError(f"{path}: {kind} file cannot be written: {error.strerror}") from error
