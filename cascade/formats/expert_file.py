"""An expert that `cascade learn` made: an encoder's GGUF file with learned heads in its metadata.

llama.cpp refuses tensors that it does not know, so the heads' numbers are arrays of the metadata. It turns
each item of such an array into text when it loads the file, which takes 140 ms for a million single bytes:
so eight bytes are packed into one 64-bit item. `docs/experts.md` describes the format.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cascade.errors import ConfigError
from cascade.files import replace_file
from cascade.formats.gguf import (
    TASKS_KEY,
    Pair,
    has_broken_text,
    parse_tasks,
    read_layout,
    read_metadata,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.generic]

EXPERT_KEY: Final = "cascade.expert"
VERSION: Final = 1
_OWN: Final = "cascade."  # keys of ours, which no encoder's vectors depend on
_ARCHITECTURE: Final = "general.architecture"
_STRING, _ARRAY, _UINT64 = 8, 9, 10  # GGUF types
_ITEM: Final = 8  # bytes of an item
_MAX_NAME: Final = 200  # UTF-8 bytes of a task's or an array's name
_BLOCK: Final = 1 << 20
_AGAIN: Final = "learn the expert again"
_Type = Literal[
    "float64", "float32", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"
]
_Length = Annotated[int, Field(ge=0, le=2**40)]


class HeadParts(Protocol):
    """What is written of a head; `cascade.engine.head.Head` has this shape."""

    @property
    def labels(self) -> Sequence[str]:
        """The closed set of answers."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain JSON."""
        ...

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The numbers, by name."""
        ...


class StoredArray(BaseModel):
    """Type and shape of an array whose bytes are in the metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: _Type
    shape: tuple[_Length, ...] = Field(max_length=4)


class LearnedTask(BaseModel):
    """One head of the file.

    Attributes:
        labels: the closed set of its answers; empty where it answers with a JSON object, whose closed fields
            are answered by the tasks TASK/FIELD.
        head: the head's settings.
        arrays: the head's arrays, by name.
        card: how it was made and what was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...]
    head: dict[str, Any]
    arrays: dict[str, StoredArray]
    card: dict[str, Any]

    @model_validator(mode="after")
    def _different(self) -> LearnedTask:
        if len(set(self.labels)) != len(self.labels) or not all(map(str.strip, self.labels)):
            raise ValueError("a label is blank or stands there twice")
        if len(self.labels) == 1:
            raise ValueError("there is a single label; give at least 2, or none for a JSON object")
        return self


class ExpertFile(BaseModel):
    """What an expert's file says of itself.

    Attributes:
        version: of the format.
        max_tokens: tokens that an encoder reads of a text; the rest is cut off.
        tasks: the heads, by task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    max_tokens: int = Field(ge=3, le=2**20)
    tasks: dict[str, LearnedTask] = Field(min_length=1)


def read_expert(path: Path) -> ExpertFile | None:
    """Return what the expert's file `path` says of itself; None for a file that is no such expert.

    Raises:
        ConfigError: the file cannot be read, or what it says is broken.
    """
    return _parse_expert(path, read_metadata(path, (EXPERT_KEY,)).get(EXPERT_KEY))


def task_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the labels of each task of a GGUF file, of an expert of either format; else empty.

    Raises:
        ConfigError: the file cannot be read, or what it says is broken.
    """
    found = read_metadata(path, (TASKS_KEY, EXPERT_KEY))
    expert = _parse_expert(path, found.get(EXPERT_KEY))
    if expert is not None:
        return {name: task.labels for name, task in expert.tasks.items()}
    return {name: tuple(task["labels"]) for name, task in parse_tasks(path, found.get(TASKS_KEY)).items()}


def read_arrays(path: Path, expert: ExpertFile) -> dict[str, dict[str, Array]]:
    """Return the arrays of each task of `expert`, by name; they cannot be written to.

    Raises:
        ConfigError: the file cannot be read, or an array is missing, of another type or of another length.
    """
    pairs = {pair.key: pair for pair in read_layout(path).pairs}
    try:
        with path.open("rb") as file:
            return {
                name: {
                    key: _read_array(file, path, pairs, _array_key(name, key), stored)
                    for key, stored in task.arrays.items()
                }
                for name, task in expert.tasks.items()
            }
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def write_expert(
    encoder: Path,
    tasks: Mapping[str, HeadParts],
    cards: Mapping[str, Mapping[str, Any]],
    out: Path,
    max_tokens: int,
) -> None:
    """Write the encoder's file with `tasks` in its metadata to `out`; the same input gives the same bytes.

    Args:
        encoder: the GGUF file of an encoder; heads that it has already are left out.
        tasks: the heads, by the name of the task.
        cards: what is known about each task, as plain JSON.
        out: replaced as a whole, or left as it is.
        max_tokens: tokens that the encoder reads of a text.

    Raises:
        ConfigError: the encoder cannot be read or is no encoder, or a head cannot be written.
        OSError: the file cannot be written; what was there is as it was.
    """
    check_encoder(encoder)
    layout = read_layout(encoder)
    pairs = [_string_pair(EXPERT_KEY, _described(tasks, cards, max_tokens))]
    for name in sorted(tasks):
        arrays = tasks[name].arrays
        pairs += [_array_pair(_array_key(name, key), arrays[key]) for key in sorted(arrays)]
    data = encoder.read_bytes()
    kept = [data[pair.start : pair.end] for pair in layout.pairs if not pair.key.startswith(_OWN)]
    head = b"GGUF" + struct.pack("<IQQ", 3, layout.tensors, len(pairs) + len(kept))
    head += b"".join([*pairs, *kept, data[layout.infos : layout.infos_end]])
    replace_file(out, head + bytes(-len(head) % layout.alignment) + data[layout.data :])


def check_encoder(path: Path) -> None:
    """Reject a file that turns no text into a vector.

    Raises:
        ConfigError: the file cannot be read, is one of several parts, or is no encoder.
    """
    found = read_metadata(path, (_ARCHITECTURE,))
    architecture = found.get(_ARCHITECTURE)
    pooling, causal = f"{architecture}.pooling_type", f"{architecture}.attention.causal"
    values = read_metadata(path, (pooling, causal, "split.count", TASKS_KEY))
    if values.get("split.count", 0) > 1:
        raise ConfigError(f"{path}: is one of several parts; merge them with llama-gguf-split --merge")
    kind = values.get(pooling)
    if kind not in (None, 0, 1, 2, 3):
        raise ConfigError(
            f"{path}: is a reranker (pooling type {kind!r}), which gives texts no vectors; "
            "give bundled:encoder or a GGUF made for embeddings"
        )
    if not kind and (TASKS_KEY in values or values.get(causal) is not False):
        raise ConfigError(
            f"{path}: is no encoder: its architecture {architecture!r} makes answers, and its metadata has "
            f"no {pooling!r}; give bundled:encoder or a GGUF made for embeddings (MiniLM, bge, e5, gte)"
        )


def is_encoder(path: Path) -> bool:
    """Return whether a file only turns texts into vectors, and writes none.

    Raises:
        ConfigError: the file cannot be read.
    """
    architecture = read_metadata(path, (_ARCHITECTURE,)).get(_ARCHITECTURE)
    pooling, causal = f"{architecture}.pooling_type", f"{architecture}.attention.causal"
    values = read_metadata(path, (pooling, causal))
    return values.get(causal) is False and values.get(pooling) in (1, 2, 3)


def encoder_digest(path: Path) -> str:
    """Return a SHA-256 (hex) over all of a file that its vectors depend on: tensors, vocabulary, sizes.

    It is computed, never read from the file. Files with the same digest can share one loaded encoder.

    Raises:
        ConfigError: the file cannot be read or is not a GGUF file.
    """
    layout, digest = read_layout(path), hashlib.sha256()
    kept = [
        pair
        for pair in layout.pairs
        if pair.key == _ARCHITECTURE or not pair.key.startswith((_OWN, "general."))
    ]
    spans = [(pair.start, pair.end) for pair in kept]
    spans += [(layout.infos, layout.infos_end), (layout.data, layout.size)]
    try:
        with path.open("rb", buffering=0) as file:
            for start, end in spans:
                file.seek(start)
                digest.update(struct.pack("<Q", end - start))
                for block in _blocks(file, end - start):
                    digest.update(block)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _blocks(file: BinaryIO | FileIO, size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(_BLOCK, size))):
        size -= len(block)
        yield block


def _parse_expert(path: Path, text: Any) -> ExpertFile | None:
    if text is None:
        return None
    if not isinstance(text, str) or has_broken_text(text):
        raise ConfigError(f"{path}: its metadata {EXPERT_KEY!r} is no text; {_AGAIN}")
    try:
        return ExpertFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([EXPERT_KEY, *map(str, first["loc"])])
        raise ConfigError(
            f"{path}: its metadata {where!r:.120} is broken: {first['msg']}; {_AGAIN}"
        ) from error


def _read_array(file: Any, path: Path, pairs: Mapping[str, Pair], key: str, stored: StoredArray) -> Array:
    import numpy as np

    pair = pairs.get(key)
    if pair is None:
        raise ConfigError(f"{path}: its metadata has no {key!r}; {_AGAIN}")
    file.seek(pair.value)
    data: bytes = file.read(pair.end - pair.value)
    item, count = struct.unpack_from("<IQ", data) if len(data) >= 12 else (None, 0)
    kind = np.dtype(stored.dtype).newbyteorder("<")
    size = kind.itemsize
    for length in stored.shape:
        size *= length
    if pair.kind != _ARRAY or item != _UINT64 or count != -(-size // _ITEM):
        raise ConfigError(
            f"{path}: its metadata {key!r} does not hold {stored.dtype} of shape {stored.shape}; {_AGAIN}"
        )
    flat = np.frombuffer(data, kind, size // kind.itemsize, offset=12)
    array: Array = flat.reshape(stored.shape).astype(kind.newbyteorder("="), copy=False)
    return array


def _described(
    tasks: Mapping[str, HeadParts], cards: Mapping[str, Mapping[str, Any]], max_tokens: int
) -> str:
    """Return the JSON of `cascade.expert`.

    Raises:
        ConfigError: something in it cannot be written.
    """
    _check_names(tasks, "task")
    described: dict[str, Any] = {}
    for name in sorted(tasks):
        head = tasks[name]
        _check_names(head.arrays, f"array of task {name!r}")
        described[name] = {
            "labels": list(head.labels),
            "head": dict(head.settings),
            "arrays": {
                key: {"dtype": array.dtype.name, "shape": list(array.shape)}
                for key, array in sorted(head.arrays.items())
            },
            "card": dict(cards.get(name, {})),
        }
    value = {"version": VERSION, "max_tokens": max_tokens, "tasks": described}
    try:
        text = json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=False)
        text.encode()
        ExpertFile.model_validate_json(text)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"an expert's labels or card hold text that is not valid Unicode: {error}"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"this expert cannot be written: {where}: {first['msg']}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"an expert's settings or card are not plain JSON: {error}") from error
    return text


def _check_names(names: Collection[str], what: str) -> None:
    if not names:
        raise ConfigError(f"there is no {what}; give at least one")
    for name in names:
        size = len(name.encode(errors="surrogatepass"))
        if not name.isprintable() or not 0 < size <= _MAX_NAME:
            raise ConfigError(f"{what} is named {name!r:.80}; expected 1 to {_MAX_NAME} printable bytes")


def _array_key(task: str, name: str) -> str:
    return f"{EXPERT_KEY}.{task}.{name}"


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _string_pair(key: str, value: str) -> bytes:
    return _text(key) + struct.pack("<I", _STRING) + _text(value)


def _array_pair(key: str, array: Array) -> bytes:
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    data += bytes(-len(data) % _ITEM)
    return _text(key) + struct.pack("<IIQ", _ARRAY, _UINT64, len(data) // _ITEM) + data
