"""The fuzzers' own frame: it repeats itself, stops in time, and keeps what failed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from fuzzing import fuzz


def a_number(random: random.Random) -> int:
    return random.randrange(100)


def test_the_drawn_inputs_are_the_same_each_time(tmp_path: Path) -> None:
    first: list[int] = []
    second: list[int] = []
    for seen in (first, second):
        assert fuzz("numbers", a_number, seen.append, examples=20, corpus=tmp_path) == 20
    assert first == second
    assert len(set(first)) > 5


def test_a_failure_names_the_input_and_is_kept_only_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def below_90(value: int) -> None:
        assert value < 90

    with pytest.raises(AssertionError, match=r"seed 0, input \d+: AssertionError.*\ninput: 9\d"):
        fuzz("numbers", a_number, below_90, examples=1000, corpus=tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("CASCADE_FUZZ_MINUTES", "1")
    monkeypatch.setenv("CASCADE_FUZZ_SEED", "3")
    with pytest.raises(AssertionError, match="seed 3"):
        fuzz("numbers", a_number, below_90, examples=0, corpus=tmp_path)
    (kept,) = (tmp_path / "numbers").iterdir()
    assert json.loads(kept.read_text()) >= 90
    monkeypatch.delenv("CASCADE_FUZZ_MINUTES")
    with pytest.raises(AssertionError, match=f"{kept.name} of its corpus"):
        fuzz("numbers", a_number, below_90, examples=0, corpus=tmp_path)


def test_bytes_are_kept_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_value: bytes) -> None:
        raise ValueError("always")

    monkeypatch.setenv("CASCADE_FUZZ_MINUTES", "1")
    with pytest.raises(AssertionError, match="ValueError: always"):
        fuzz("bytes", lambda random: random.randbytes(8), fails, examples=0, corpus=tmp_path)
    (kept,) = (tmp_path / "bytes").iterdir()
    assert kept.suffix == ".bin"
    assert len(kept.read_bytes()) == 8
