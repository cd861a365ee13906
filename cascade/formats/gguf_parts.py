"""A model in several GGUF files: `NAME-00001-of-00003.gguf` and the others beside it are one model."""

from __future__ import annotations

import re
from pathlib import Path

from cascade.errors import ConfigError
from cascade.formats.gguf import read_metadata

_PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)
_COUNT_KEY = "split.count"


def part_names(name: str) -> tuple[str, ...]:
    """Return the names of all parts of the model whose first part is `name`; `name` alone if it is whole.

    Raises:
        ConfigError: `name` is a part other than the first.
    """
    match = _PART.fullmatch(name)
    if match is None or int(match["count"]) < 2:
        return (name,)
    stem, number, count = match["stem"], int(match["number"]), int(match["count"])
    names = tuple(f"{stem}-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1))
    if number != 1:
        raise ConfigError(f"{name!r} is part {number} of {count}; name the first part, {names[0]!r}")
    return names


def model_files(path: Path) -> tuple[Path, ...]:
    """Return the files of the model whose only or first file is `path`.

    Raises:
        ConfigError: a part is missing, or `path` is a part other than the first.
    """
    files = tuple(path.with_name(name) for name in part_names(path.name))
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return files
    if path.name in missing or not _is_split(path):  # whoever reads a missing file says so
        return (path,)
    shown = ", ".join(repr(name) for name in missing[:8])
    raise ConfigError(
        f"{path.name!r} is the first of {len(files)} parts, and {shown} "
        f"{'is' if len(missing) == 1 else 'are'} missing in {path.parent}; put all parts there"
    )


def file_bytes(path: Path) -> int:
    """Return the size of the model whose only or first file is `path`, in bytes.

    Raises:
        ConfigError: a part is missing.
        OSError: a file cannot be read.
    """
    return sum(file.stat().st_size for file in model_files(path))


def _is_split(path: Path) -> bool:
    """Return whether the file says that it is one of several; a whole file may have such a name too."""
    count = read_metadata(path, {_COUNT_KEY}).get(_COUNT_KEY)
    return isinstance(count, int) and count > 1
