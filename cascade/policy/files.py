"""Reading and writing the small JSON files that a policy is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cascade.errors import ConfigError
from cascade.files import replace_file
from cascade.records import Record

R = TypeVar("R", bound=Record)


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
