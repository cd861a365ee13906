"""The sentences that experts learn from: splits, variants and outliers."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.lab.training import augment, outliers, pool
from cascade.lab.training import datasets as data
from cascade.lab.training.datasets import OOS, Row, Split
from cascade.lab.training.words import Neighbours

NEAR = Neighbours({"card": ("cards", "mastercard"), "lost": ("missing", "stolen")})
ROWS = [
    Row("i lost my blue card yesterday", "lost"),
    Row("please find my lost card", "lost"),
    Row("the cat sat on my mat", "cat"),
    Row("my cat likes the mat", "cat"),
]


@pytest.fixture(scope="module")
def folder() -> Path:
    root = data.default_dir()
    if not (root / "clinc150").is_dir():
        pytest.skip(f"no data sets at {root}; set CASCADE_DATA")
    return root


@pytest.mark.parametrize(
    ("task", "rows", "labels"),
    [
        ("clinc150", (15100, 3100, 5500), 151),
        ("banking77", (9144, 859, 3080), 77),
        ("tram", (3690, 318, 1015), 50),
        ("desk", (27934, 4277, 9595), 3),
    ],
)
def test_splits(folder: Path, task: str, rows: tuple[int, int, int], labels: int) -> None:
    split = data.load(task, folder)
    assert (len(split.train), len(split.val), len(split.test)) == rows
    assert len(split.labels) == labels


@pytest.mark.parametrize(("task", "repeats"), [("banking77", 6), ("tram", 0)])
def test_val_and_test_texts_are_not_in_train(folder: Path, task: str, repeats: int) -> None:
    """BANKING77's own test repeats six training texts but for white space; it is left as published."""
    split = data.load(task, folder)
    train, val, test = ({row.text for row in rows} for rows in (split.train, split.val, split.test))
    assert not train & val
    assert len(test & (train | val)) == repeats


def test_unknown_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown task 'sentiment'; known: clinc150"):
        data.load("sentiment", tmp_path)


def test_variants_are_the_same_for_the_same_seed() -> None:
    def varied(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [augment.vary(row.text, rng, NEAR) for row in ROWS]

    first, again, other = varied(1), varied(1), varied(2)
    assert first == again
    assert first != other


def test_variants_are_never_empty() -> None:
    rng = random.Random(0)
    assert all(augment.vary("card", rng, NEAR).strip() for _ in range(300))
    assert augment.vary("", rng, NEAR) == ""


def test_typo_touches_one_place() -> None:
    rng = random.Random(0)
    for _ in range(200):
        assert abs(len(augment.typo("statement", rng)) - len("statement")) <= 1
    assert augment.typo("no", rng) == "no"


def test_replacement_uses_neighbours_only() -> None:
    words = augment.replace(["my", "lost", "card"], random.Random(0), 1.0, NEAR)
    assert words[0] == "my"
    assert words[1] in {"missing", "stolen"}
    assert words[2] in {"cards", "mastercard"}


def test_questions_are_many_and_repeatable() -> None:
    first = outliers.questions(500, 3)
    assert first == outliers.questions(500, 3)
    assert len(set(first)) == 500
    assert not any("{" in text or "|" in text for text in first)


def framed(word: str, label: str) -> Row:
    return Row(f"what is the {word} please", label)


def test_hollow_sentences_keep_the_frame_and_no_telling_word() -> None:
    rows = [framed(word, word) for word in ("cat", "card", "car", "cake", "coin", "coat")]
    assert outliers.telling_words(rows) == {"cat", "card", "car", "cake", "coin", "coat"}
    assert set(outliers.hollow(rows, ["violin", "card"], 5, 0)) == {"what is the violin please"}


def test_hollow_needs_a_frame() -> None:
    """Where every word tells, there is nothing to keep."""
    assert outliers.hollow([Row("red fish", "a"), Row("blue bird", "b")], ["violin"], 5, 0) == []


def test_pool_labels_only_what_is_known() -> None:
    split = Split("clinc150", ROWS, [], [])
    settings = pool.PoolSettings(variants=2, splices=3, twins=1, questions=10, hollow=0)
    items = pool.compose([split], ["violin"], NEAR, settings)
    assert [item.label for item in items[:4]] == ["lost", "lost", "cat", "cat"]
    assert sum(item.label == OOS for item in items) == 10
    assert items == pool.compose([split], ["violin"], NEAR, settings)


def test_pool_survives_a_file(tmp_path: Path) -> None:
    items = [pool.Item("naïve ☃", "clinc150", ""), pool.Item("b", "banking77", "x")]
    pool.save(items, tmp_path / "pool.jsonl")
    assert pool.restore(tmp_path / "pool.jsonl") == items


def test_import_needs_no_torch() -> None:
    """The package imports without the training extra."""
    code = (
        "import sys, cascade.lab.training; assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_joined_pools_start_with_all_given_rows() -> None:
    """Students repeat the given rows, which they find at the start."""
    first = [pool.Item("a", "x", "1"), pool.Item("a b", "x", ""), pool.Item("seen", "x", "")]
    second = [pool.Item("c", "y", "2"), pool.Item("c c", "y", "")]
    joined = pool.join([first, second], {pool.Item("seen", "x", ""), pool.Item("c", "y", "2")})
    assert [item.text for item in joined] == ["a", "c", "a b", "c c"]
