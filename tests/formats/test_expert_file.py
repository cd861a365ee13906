"""Heads within an encoder's GGUF file: what was written is read, and whatever is broken is an error."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_maker import make_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.config.references import gguf_tasks, referred_labels
from cascade.engine.weights import Weights
from cascade.errors import ConfigError
from cascade.formats.expert_file import (
    check_encoder,
    encoder_digest,
    read_arrays,
    read_expert,
    write_expert,
)
from cascade.formats.gguf import read_layout


@dataclass
class Parts:
    labels: tuple[str, ...] = ("card", "card lost", 'a "quoted"\nlabel', "ü")
    settings: dict[str, Any] = field(default_factory=lambda: {"version": 1, "weights": [0.5, -1e-9]})
    arrays: dict[str, np.ndarray] = field(
        default_factory=lambda: {
            "weights": np.arange(12, dtype=np.float32).reshape(4, 3) / 7,
            "small": np.array([[-128, 127, 3]], np.int8),
            "keys": np.array([0, 2**32 - 1, 5], np.uint32),
            "half": np.array([1.5, -2.0], np.float16),
            "empty": np.zeros((0, 4), np.int8),
            "one": np.array(7, np.int64),
        }
    )


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return make_gguf(tmp_path / "encoder.gguf", causal=False, pooling=1, layers=1, width=32)


@pytest.fixture
def expert(tmp_path: Path, encoder: Path) -> Path:
    out = tmp_path / "experts" / "tickets.gguf"
    write_expert(encoder, {"tickets": Parts(), "other task": Parts()}, {"tickets": {"rows": 500}}, out, 128)
    return out


def test_what_was_written_is_read(expert: Path) -> None:
    found = read_expert(expert)
    assert found is not None
    assert found.max_tokens == 128
    assert found.tasks["tickets"].labels == Parts().labels
    assert found.tasks["tickets"].head == Parts().settings
    assert found.tasks["tickets"].card == {"rows": 500}
    assert found.tasks["other task"].card == {}
    for arrays in read_arrays(expert, found).values():
        assert arrays.keys() == Parts().arrays.keys()
        for name, array in Parts().arrays.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)


def test_its_labels_are_found_where_a_graph_names_them(expert: Path) -> None:
    assert gguf_tasks(expert) == {"other task": Parts().labels, "tickets": Parts().labels}
    assert referred_labels("experts/tickets.gguf#tickets", expert.parent.parent) == Parts().labels


def test_the_same_head_gives_the_same_bytes_also_on_an_expert(
    tmp_path: Path, encoder: Path, expert: Path
) -> None:
    again, over = tmp_path / "again.gguf", tmp_path / "over.gguf"
    shuffled = Parts(arrays=dict(reversed(Parts().arrays.items())))
    for source, out in ((encoder, again), (expert, over)):
        write_expert(
            source, {"other task": Parts(), "tickets": shuffled}, {"tickets": {"rows": 500}}, out, 128
        )
        assert out.read_bytes() == expert.read_bytes()


def test_llama_cpp_loads_it_and_sees_the_encoder_unchanged(encoder: Path, expert: Path) -> None:
    vectors = []
    for path in (encoder, expert):
        weights = Weights(path)
        embedder = weights.embedder(64, 1)
        steps = embedder.embed([weights.tokenize("hello card", 64, begin=True)])
        with pytest.raises(StopIteration) as ended:
            next(steps)
        vectors.append(ended.value.value)
        weights.close()
    np.testing.assert_array_equal(*vectors)


def test_the_digest_is_of_the_encoder_and_nothing_that_a_file_says_of_itself(
    tmp_path: Path, encoder: Path, expert: Path
) -> None:
    lying = tmp_path / "lying.gguf"
    card = {"t": {"encoder_sha256": "0" * 64}}
    write_expert(encoder, {"t": Parts()}, card, lying, 64)
    assert encoder_digest(encoder) == encoder_digest(expert) == encoder_digest(lying)
    others = [
        make_gguf(tmp_path / f"{index}.gguf", causal=False, layers=1, width=32, **changes)
        for index, changes in enumerate(
            ({"pooling": 2}, {"pooling": 1, "seed": 1}, {"pooling": 1, "n_ctx": 64})
        )
    ]
    assert len({encoder_digest(path) for path in (encoder, *others)}) == 4


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({}, "is no encoder: its architecture 'llama' makes answers"),
        ({"pooling": 4, "causal": False}, "is a reranker"),
    ],
)
def test_a_file_that_is_no_encoder_is_refused_with_what_to_give(
    tmp_path: Path, made: dict[str, Any], message: str
) -> None:
    path = make_gguf(tmp_path / "other.gguf", layers=1, width=32, **made)
    with pytest.raises(ConfigError, match=message) as error:
        write_expert(path, {"t": Parts()}, {}, tmp_path / "out.gguf", 64)
    assert "bundled:encoder" in str(error.value)
    assert not (tmp_path / "out.gguf").exists()
    check_encoder(make_gguf(tmp_path / "last.gguf", pooling=3, layers=1, width=32))  # a decoder made for it


@pytest.mark.parametrize(
    ("head", "cards", "tokens", "message"),
    [
        (Parts(labels=("a", "a")), {}, 64, "twice"),
        (Parts(labels=("a",)), {}, 64, "at least 2"),
        (Parts(labels=("a", " ")), {}, 64, "blank"),
        (Parts(labels=("a", "\ud800")), {}, 64, "not valid Unicode"),
        (Parts(settings={"x": float("nan")}), {}, 64, "not plain JSON"),
        (Parts(arrays={"x": np.zeros(2, np.complex64)}), {}, 64, "dtype"),
        (Parts(arrays={"x\0y": np.zeros(2, np.float32)}), {}, 64, "printable"),
        (Parts(arrays={}), {}, 64, "give at least one"),
        (Parts(), {"t": {"made": object()}}, 64, "not plain JSON"),
        (Parts(), {}, 0, "max_tokens"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, encoder: Path, head: Parts, cards: dict[str, Any], tokens: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_expert(encoder, {"t": head}, cards, tmp_path / "out.gguf", tokens)
    assert not (tmp_path / "out.gguf").exists()


def read_whole(path: Path) -> None:
    found = read_expert(path)
    if found is not None:
        read_arrays(path, found)


def changed(expert: Path, old: bytes, new: bytes) -> Path:
    data = expert.read_bytes()
    assert data.count(old) >= 1
    assert len(old) == len(new)
    expert.write_bytes(data.replace(old, new))
    return expert


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"version": 1}', b'"version": 2}', "cascade.expert.version"),
        (b'"max_tokens": 128', b'"max_tokens": -28', "max_tokens"),
        (b'"shape": [4, 3]', b'"shape": [4, 9]', "does not hold float32 of shape"),
        (b'"shape": [0, 4]', b'"shape": [9, 4]', "does not hold int8 of shape"),
        (b'"float32"', b'"floaty2"', "dtype"),
        (b"cascade.expert.tickets.weights", b"cascade.expert.tickets.weightz", "has no 'cascade.expert.tick"),
        (b'{"max_tokens"', b'["max_tokens"', "is broken"),
        (b'"quoted', b"\xff\xfe\xfduote", "is no text"),
    ],
)
def test_a_broken_file_is_an_error_that_says_what_to_do(
    expert: Path, old: bytes, new: bytes, message: str
) -> None:
    path = changed(expert, old, new)
    with pytest.raises(ConfigError, match=message) as error:
        read_whole(path)
    assert "learn the expert again" in str(error.value)


def test_any_damage_is_an_error_or_is_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damage")
    encoder = make_gguf(folder / "encoder.gguf", causal=False, pooling=1, layers=1, width=32)
    path, bad = folder / "expert.gguf", folder / "bad.gguf"
    write_expert(encoder, {"t": Parts()}, {}, path, 64)
    data, end = path.read_bytes(), read_layout(path).data

    @given(st.integers(0, end), st.binary(min_size=1, max_size=9), st.none() | st.integers(0, end))
    @settings(max_examples=200)
    def damaged(at: int, piece: bytes, cut: int | None) -> None:
        bad.write_bytes((data[:at] + piece + data[at + len(piece) :])[:cut])
        with contextlib.suppress(ConfigError):
            read_whole(bad)

    damaged()


def test_a_full_disk_leaves_nothing_under_the_name(tmp_path: Path, encoder: Path) -> None:
    script = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from types import SimpleNamespace
from cascade.formats.expert_file import write_expert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
head = SimpleNamespace(labels=("a", "b"), settings={}, arrays={"x": np.zeros(9, np.float32)})
try:
    write_expert(Path(sys.argv[1]), {"t": head}, {}, Path(sys.argv[2]), 64)
except OSError as error:
    print("refused", error.errno)
"""
    assert encoder.stat().st_size > 20000
    assert resource.RLIMIT_FSIZE  # POSIX
    out = tmp_path / "out" / "expert.gguf"
    out.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, encoder, out], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("refused")
    assert list(out.parent.iterdir()) == []


def test_a_plain_model_has_no_heads(encoder: Path) -> None:
    assert read_expert(encoder) is None
    assert gguf_tasks(encoder) == {}


def test_the_json_is_sorted_and_holds_no_more_than_the_format(expert: Path) -> None:
    data = expert.read_bytes()
    start = data.index(b'{"max_tokens"')
    text = json.JSONDecoder().raw_decode(data[start : read_layout(expert).pairs[0].end].decode())[0]
    assert sorted(text) == ["max_tokens", "tasks", "version"]
    assert sorted(text["tasks"]["tickets"]) == ["arrays", "card", "head", "labels"]
