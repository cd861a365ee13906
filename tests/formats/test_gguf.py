"""The metadata of GGUF files is read without llama.cpp, and whatever is wrong with a file is an error."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import gguf
import pytest
from gguf_maker import make_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.errors import ConfigError
from cascade.formats.gguf import TASKS_KEY, read_metadata, read_tasks


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def header(*pairs: bytes, version: int = 3, count: int | None = None) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs) if count is None else count) + b"".join(pairs)


def pair(key: str, value: str | bytes) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


def test_tasks_and_labels_are_read_from_a_real_file(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "expert.gguf", tasks={"pets": ["cat", "dog"], "sides": ["left", "right"]})
    assert {name: task["labels"] for name, task in read_tasks(path).items()} == {
        "pets": ["cat", "dog"],
        "sides": ["left", "right"],
    }


def test_a_file_without_tasks_has_none(tmp_path: Path) -> None:
    assert read_tasks(make_gguf(tmp_path / "plain.gguf")) == {}


def test_the_wanted_values_of_every_type_are_found_after_those_that_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "types.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_array("skip.words", ["a", "bc", "ü"])
    writer.add_array("skip.numbers", [1, 2, 3])
    writer.add_bool("flag", True)
    writer.add_float32("third", 0.5)
    writer.add_int64("large", -(2**40))
    writer.add_array("words", ["a", "bc", "ü"])
    writer.add_array("numbers", [1, 2, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    expected = {
        "flag": True,
        "third": 0.5,
        "large": -(2**40),
        "words": ["a", "bc", "ü"],
        "numbers": [1, 2, 3],
    }
    assert read_metadata(path, [*expected, "absent"]) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it ends too early"),
        (b"GGU", "it ends too early"),
        (b"<html>not found</html>", "it starts with b'<htm'"),
        (header(version=1), "version is 1; known: 2, 3"),
        (header(version=3 << 24), "version is 50331648"),
        (header(count=2**63), "it ends too early"),
        (header(pair("a", "b"))[:-1], "it ends too early"),
        (header(text("a") + struct.pack("<IQ", 8, 2**62)), "it ends too early"),
        (header(text("a") + struct.pack("<I", 99)), "a value of unknown type 99"),
        (header(text("a") + struct.pack("<IIQ", 9, 8, 2**62)), "an array in its metadata claims"),
        (header(text("a") + struct.pack("<IIQ", 9, 0, 2**62)), "it ends too early"),
        (header(text("a") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 6), "unknown type 9"),
        (header(pair(TASKS_KEY, b"\xff\xfe")), "a string in its metadata is not UTF-8"),
    ],
)
def test_a_broken_file_is_an_error_that_says_why(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"broken\.gguf: not a GGUF file that can be read: ") as caught:
        read_tasks(path)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "tasks",
    ["{", "[1]", "3", '{"a": 1}', '{"a": {}}', '{"a": {"labels": 3}}', '{"a": {"labels": [1]}}', "[" * 10**5],
)
def test_a_broken_contract_is_an_error(tmp_path: Path, tasks: str) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(header(pair(TASKS_KEY, tasks)))
    with pytest.raises(ConfigError, match=r"metadata 'cascade\.tasks'"):
        read_tasks(path)


def test_a_folder_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_tasks(path)


GOOD = header(pair("general.name", "x"), pair(TASKS_KEY, json.dumps({"a": {"labels": ["b"]}})))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=9))
def test_damage_anywhere_gives_tasks_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(GOOD[:place] + damage + GOOD[place + len(damage) :])
    try:
        tasks = read_tasks(path)
    except ConfigError:
        return
    assert all(isinstance(label, str) for task in tasks.values() for label in task["labels"])
