"""Reads the metadata of a GGUF file without llama.cpp, so that labels and tasks are known before loading.

The format is described in ggml's `docs/gguf.md`: magic, version, two counts, then key-value pairs. Nothing is
trusted: counts are bounded by the file's size, so a broken file is an error and never exhausts memory.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from cascade.errors import ConfigError

_BROKEN = re.compile("[\ud800-\udfff]")  # what a byte that is not UTF-8 was read as
T = TypeVar("T")

TASKS_KEY = "cascade.tasks"
TEMPLATE_KEY = "tokenizer.chat_template"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_NESTING = 4
_ALIGNMENT, _DEFAULT_ALIGNMENT = "general.alignment", 32
# ggml type → items and bytes of a block (ggml's `type_traits`).
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
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
        """Return the next length-prefixed string; bytes that are not UTF-8 become lone surrogates."""
        return self.take(self.number("Q")).decode(errors="surrogateescape")

    def value(self, kind: int, wanted: bool, depth: int = 0) -> Any:
        """Return the next value of type `kind`, or skip it and return None if it is not wanted."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string() if wanted else self.skip(self.number("Q"))
        if kind != _ARRAY or depth >= _MAX_NESTING:
            raise _GgufError(f"its metadata has a value of unknown type {kind}")
        item, count = self.number("I"), self.number("Q")
        if item in _SCALARS:
            width = struct.calcsize(_SCALARS[item])
            if not wanted:
                return self.skip(count * width)
            return list(struct.unpack(f"<{count}{_SCALARS[item]}", self.take(count * width)))
        if count > self.size:
            raise _GgufError(f"an array in its metadata claims {count} items")
        items = [self.value(item, wanted, depth + 1) for _ in range(count)]
        return items if wanted else None


class Tensor(NamedTuple):
    """A tensor of a GGUF file: its sizes, fastest-varying first, its ggml type, and where its data begins.

    `offset` is in bytes, from the beginning of the file's data.
    """

    sizes: tuple[int, ...]
    kind: int
    offset: int

    @property
    def bytes(self) -> int | None:
        """Bytes of the data; None for a type that is not known here."""
        if self.kind not in _BLOCKS:
            return None
        items, size = _BLOCKS[self.kind]
        return math.prod(self.sizes) // items * size


class Header(NamedTuple):
    """A GGUF file without its data: metadata values and their GGUF types, and tensors, by name.

    `data` is where the data begins, `size` the file's size, both in bytes.
    """

    values: dict[str, Any]
    kinds: dict[str, int]
    tensors: dict[str, Tensor]
    data: int
    size: int

    @property
    def data_bytes(self) -> int:
        """Bytes that the file needs for its tensors at least; the last is at its end, unpadded."""
        ends = (tensor.offset + (tensor.bytes or 0) for tensor in self.tensors.values())
        return max(ends, default=0)


def read_header(path: Path, arrays: Callable[[str], bool] = lambda _key: False) -> Header:
    """Return the metadata and tensors of the GGUF file `path`; arrays are read whose key `arrays` wants.

    Other arrays are None. Text that is not UTF-8 has lone surrogates in place of its bytes.

    Raises:
        ConfigError: the file cannot be read or is not a GGUF file.
    """
    return _opened(path, lambda reader: _read_header(reader, arrays))


def read_metadata(path: Path, wanted: Collection[str]) -> dict[str, Any]:
    """Return the metadata of the GGUF file `path` for those keys in `wanted` that it has.

    Raises:
        ConfigError: the file cannot be read or is not a GGUF file.
    """
    return _opened(path, lambda reader: _read(reader, wanted))


class Pair(NamedTuple):
    """A key of the metadata, its GGUF type, and where the pair begins, its value begins, and it ends."""

    key: str
    kind: int
    start: int
    value: int
    end: int


class Layout(NamedTuple):
    """Where the parts of a GGUF file lie, in bytes from its beginning.

    `tensors` is the number of tensors; their descriptions lie from `infos` to `infos_end`, and their data
    from `data` to the file's end at `size`.
    """

    pairs: tuple[Pair, ...]
    tensors: int
    infos: int
    infos_end: int
    data: int
    size: int
    alignment: int


def read_layout(path: Path) -> Layout:
    """Return where the parts of the GGUF file `path` lie; no value is kept.

    Raises:
        ConfigError: the file cannot be read or is not a GGUF file.
    """
    return _opened(path, _read_layout)


def _read_layout(reader: _Reader) -> Layout:
    count, number = _counts(reader)
    pairs, alignment = [], _DEFAULT_ALIGNMENT
    for _ in range(number):
        start = reader.file.tell()
        key, kind = reader.string(), reader.number("I")
        at = reader.file.tell()
        value = reader.value(kind, wanted=False)
        alignment = _aligned(value) if key == _ALIGNMENT else alignment
        pairs.append(Pair(key, kind, start, at, reader.file.tell()))
    infos = reader.file.tell()
    for _ in range(count):
        _read_tensor(reader)
    end = reader.file.tell()
    data = -(-end // alignment) * alignment
    return Layout(tuple(pairs), count, infos, end, data, reader.size, alignment)


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


def _read_header(reader: _Reader, arrays: Callable[[str], bool]) -> Header:
    count, pairs = _counts(reader)
    values: dict[str, Any] = {}
    kinds: dict[str, int] = {}
    for _ in range(pairs):
        key = reader.string()
        kinds[key] = kind = reader.number("I")
        values[key] = reader.value(kind, wanted=kind != _ARRAY or arrays(key))
    tensors = dict(_read_tensor(reader) for _ in range(count))
    alignment = _aligned(values.get(_ALIGNMENT, _DEFAULT_ALIGNMENT))
    start = -(-reader.file.tell() // alignment) * alignment
    return Header(values, kinds, tensors, start, reader.size)


def _aligned(alignment: object) -> int:
    if not isinstance(alignment, int) or alignment < 1:
        raise _GgufError(f"{_ALIGNMENT} is {alignment!r}; expected a power of two")
    return alignment


def _read_tensor(reader: _Reader) -> tuple[str, Tensor]:
    name, count = reader.string(), reader.number("I")
    if count > _MAX_NESTING:
        raise _GgufError(f"tensor {name!r} has {count} dimensions")
    sizes = tuple(reader.number("Q") for _ in range(count))
    return name, Tensor(sizes, reader.number("I"), reader.number("Q"))


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
    """Return the tasks (name → contract) of a GGUF file of size tiny; else empty.

    Raises:
        ConfigError: the file is broken, or its tasks are not what `docs/experts.md` says.
    """
    return parse_tasks(path, read_metadata(path, (TASKS_KEY,)).get(TASKS_KEY))


def has_broken_text(text: str) -> bool:
    """Return whether a string of the metadata held bytes that are not UTF-8."""
    return not text.isascii() and _BROKEN.search(text) is not None


def parse_tasks(path: Path, text: Any) -> dict[str, dict[str, Any]]:
    """Return the tasks that the metadata value `text` of `path` holds; empty where it is None.

    Raises:
        ConfigError: they are not what `docs/experts.md` says.
    """
    if text is None:
        return {}
    if isinstance(text, str) and has_broken_text(text):
        raise ConfigError(
            f"{path}: not a GGUF file that can be read: a string in its metadata is not UTF-8: {TASKS_KEY!r}"
        )
    try:
        tasks = json.loads(text)
        good = all(isinstance(label, str) for task in tasks.values() for label in task["labels"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: metadata {TASKS_KEY!r} is broken: {error}; export it again") from error
    if not good:
        raise ConfigError(f"{path}: its metadata {TASKS_KEY!r} has labels that are not text; export it again")
    return dict(tasks)
