"""Reads the metadata of a GGUF file without llama.cpp, so that labels and tasks are known before loading.

The format is described in ggml's `docs/gguf.md`: magic, version, two counts, then key-value pairs. Nothing is
trusted: counts are bounded by the file's size, so a broken file is an error and never exhausts memory.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from cascade.errors import ConfigError

T = TypeVar("T")

TASKS_KEY = "cascade.tasks"
TEMPLATE_KEY = "tokenizer.chat_template"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_NESTING = 4
_CUT = "it ends too early; copy or download it again"


class _GgufError(Exception):
    """The bytes are not a GGUF file that we can read."""


@dataclass
class _Reader:
    """A bounded cursor over a GGUF file."""

    file: BinaryIO
    size: int

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        data = self.file.read(min(count, self.size))
        if len(data) != count:
            raise _GgufError(_CUT)
        return data

    def skip(self, count: int) -> None:
        """Move over `count` bytes."""
        if count > self.size - self.file.tell():
            raise _GgufError(_CUT)
        self.file.seek(count, os.SEEK_CUR)

    def number(self, code: str) -> Any:
        """Return the next little-endian number with struct code `code`."""
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        """Return the next length-prefixed string."""
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise _GgufError("a string in its metadata is not UTF-8") from error

    def value(self, kind: int, wanted: bool, depth: int = 0) -> Any:
        """Return the next value of type `kind`, or skip it and return None if it is not wanted."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string() if wanted else self.skip(self.number("Q"))
        if kind != _ARRAY or depth >= _MAX_NESTING:
            raise _GgufError(f"its metadata has a value of unknown type {kind}")
        item, count = self.number("I"), self.number("Q")
        if not wanted and item in _SCALARS:
            return self.skip(count * struct.calcsize(_SCALARS[item]))
        if count > self.size:
            raise _GgufError(f"an array in its metadata claims {count} items")
        items = [self.value(item, wanted, depth + 1) for _ in range(count)]
        return items if wanted else None


class Tensor(NamedTuple):
    """A tensor of a GGUF file: its sizes, fastest-varying first, and its ggml type."""

    sizes: tuple[int, ...]
    kind: int


class Header(NamedTuple):
    """A GGUF file without its data: metadata values and their GGUF types, and tensors, by name."""

    values: dict[str, Any]
    kinds: dict[str, int]
    tensors: dict[str, Tensor]


def read_header(path: Path) -> Header:
    """Return the metadata and tensors of the GGUF file `path`; arrays in the metadata are None.

    Raises:
        ConfigError: the file cannot be read or is not a GGUF file.
    """
    return _opened(path, _read_header)


def read_metadata(path: Path, wanted: Collection[str]) -> dict[str, Any]:
    """Return the metadata of the GGUF file `path` for those keys in `wanted` that it has.

    Raises:
        ConfigError: the file cannot be read or is not a GGUF file.
    """
    return _opened(path, lambda reader: _read(reader, wanted))


def _opened(path: Path, read: Callable[[_Reader], T]) -> T:
    try:
        with path.open("rb", buffering=1 << 18) as file:
            return read(_Reader(file, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (_GgufError, struct.error) as error:
        raise ConfigError(f"{path}: not a GGUF file that can be read: {error}") from error


def _counts(reader: _Reader) -> tuple[int, int]:
    """Return the numbers of tensors and of metadata pairs."""
    if (magic := reader.take(4)) != b"GGUF":
        raise _GgufError(f"it starts with {magic!r} where GGUF files start with b'GGUF'; give another")
    if (version := reader.number("I")) not in (2, 3):
        raise _GgufError(f"version is {version}; known: 2, 3 (little-endian)")
    return reader.number("Q"), reader.number("Q")


def _read_header(reader: _Reader) -> Header:
    tensors, pairs = _counts(reader)
    header = Header({}, {}, {})
    for _ in range(pairs):
        key = reader.string()
        header.kinds[key] = kind = reader.number("I")
        header.values[key] = reader.value(kind, wanted=kind != _ARRAY)
    for _ in range(tensors):
        name, count = reader.string(), reader.number("I")
        if count > _MAX_NESTING:
            raise _GgufError(f"tensor {name!r} has {count} dimensions")
        sizes = tuple(reader.number("Q") for _ in range(count))
        header.tensors[name] = Tensor(sizes, reader.number("I"))
        reader.skip(8)
    return header


def _read(reader: _Reader, wanted: Collection[str]) -> dict[str, Any]:
    _tensors, pairs = _counts(reader)
    values: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.string()
        value = reader.value(reader.number("I"), key in wanted)
        if key in wanted:
            values[key] = value
            if len(values) == len(set(wanted)):
                break
    return values


def read_tasks(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tasks (name → contract) of a GGUF file written by `cascade.lab.training`; else empty.

    Raises:
        ConfigError: the file is broken, or its tasks are not what `docs/experts.md` says.
    """
    text = read_metadata(path, (TASKS_KEY,)).get(TASKS_KEY)
    if text is None:
        return {}
    try:
        tasks = json.loads(text)
        good = all(isinstance(label, str) for task in tasks.values() for label in task["labels"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: metadata {TASKS_KEY!r} is broken: {error}; export it again") from error
    if not good:
        raise ConfigError(f"{path}: its metadata {TASKS_KEY!r} has labels that are not text; export it again")
    return dict(tasks)
