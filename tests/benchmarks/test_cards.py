"""The cards describe the files that ship, and their figures are what they say."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import cards
from cards import Answers, cascade_on_test, threshold
from published import OOS

import cascade
from cascade.errors import ConfigError
from cascade.formats.gguf import read_tasks

EXPERTS = Path(cascade.__file__).parent / "experts"
CARDS = [path for path in sorted(EXPERTS.glob("*.json")) if path.stem != "pairs"]


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_card_is_of_the_shipped_file(path: Path) -> None:
    shown = json.loads(path.read_text())
    data = (EXPERTS / shown["file"]).read_bytes()
    assert shown["sha256"] == hashlib.sha256(data).hexdigest()
    assert shown["bytes"] == len(data)
    tasks = read_tasks(EXPERTS / shown["file"])
    assert {name: len(task["labels"]) for name, task in tasks.items()} == {
        name: part["labels"] for name, part in shown.get("tasks", {}).items()
    }


def test_every_shipped_file_has_a_card() -> None:
    assert {path.stem for path in EXPERTS.glob("*.gguf")} == {path.stem for path in CARDS}
    assert sum(path.stat().st_size for path in EXPERTS.glob("*.gguf")) < 42e6


def test_page_is_generated_from_the_cards() -> None:
    found = {path.stem: json.loads(path.read_text()) for path in CARDS}
    pairs = json.loads((EXPERTS / "pairs.json").read_text())
    assert cards.page([found[name] for name in cards.TIERS], pairs, found["encoder"]) == (
        EXPERTS / "README.md"
    ).read_text(encoding="utf-8")


def answers(truth: list[str], message: list[str], trust: list[float]) -> Answers:
    confidence = np.array(trust)
    inside = np.where(np.array(message) == OOS, 1 - confidence, confidence)
    return Answers(np.array(truth), np.array(message), confidence, inside, confidence[:, None])


def test_figures_leave_out_of_scope_rows_apart() -> None:
    shown: dict[str, Any] = cards.figures(answers(["a", "b", OOS], ["a", "a", OOS], [0.9, 0.6, 0.8]))
    assert shown["rows"] == 2
    assert shown["accuracy"] == 0.5
    assert shown["oos_rows"] == 1
    assert shown["oos_auroc"] == 1.0
    assert shown["oos_recall"] == 1.0


def test_threshold_keeps_the_risk() -> None:
    result = answers(["a"] * 4, ["a", "a", "b", "b"], [0.9, 0.8, 0.7, 0.6])
    assert threshold(result) == 0.8


def test_second_tier_answers_what_the_first_leaves() -> None:
    val = answers(["a", "a", "a"], ["a", "a", "b"], [0.9, 0.8, 0.7])
    first = answers(["a", "a", OOS], ["a", "b", "b"], [0.9, 0.5, 0.4])
    second = answers(["a", "a", OOS], ["a", "a", OOS], [0.9, 0.85, 0.9])
    shown = cascade_on_test((val, first), (val, second))
    assert shown["thresholds"] == [0.8, 0.8]
    assert shown["answered"] == 1.0
    assert shown["first_share"] == 0.5
    assert shown["accuracy_answered"] == 1.0
    assert shown["oos_accepted"] == 0.0


def test_cards_need_every_file_and_say_which_are_missing(tmp_path: Path) -> None:
    (tmp_path / "hunter.gguf").touch()
    with pytest.raises(ConfigError, match=r"has no tiny\.gguf, small\.gguf; the page needs all experts"):
        cards.write_all(tmp_path, tmp_path)
