"""The texts that experts learn from beside the rows: variants, frames without meaning, transfer sets."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from cascade.lab.networks import augment
from cascade.lab.networks.transfer import UNLABELLED, TransferSet, TransferSettings, compose, targets
from cascade.lab.networks.words import Neighbours, common_words, frequent, neighbours, word_counts

NEAR = Neighbours({"card": ("cards", "mastercard"), "lost": ("missing", "stolen")})
ROWS = [
    ("i lost my blue card yesterday", "lost"),
    ("please find my lost card", "lost"),
    ("the cat sat on my mat", "cat"),
    ("my cat likes the mat", "cat"),
]


def test_variants_are_the_same_for_the_same_seed() -> None:
    def varied(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [augment.vary(text, rng, NEAR) for text, _ in ROWS]

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


def framed(word: str) -> tuple[str, str]:
    return f"what is the {word} please", word


def test_hollow_texts_keep_the_frame_and_no_telling_word() -> None:
    rows = [framed(word) for word in ("cat", "card", "car", "cake", "coin", "coat")]
    assert augment.telling_words(rows) == {"cat", "card", "car", "cake", "coin", "coat"}
    made = augment.hollow(rows, ["violin", "card"], 5, random.Random(0))
    assert set(made) == {"what is the violin please"}


def test_hollow_needs_a_frame_and_a_word() -> None:
    rows = [("red fish", "a"), ("blue bird", "b")]
    assert augment.hollow(rows, ["violin"], 5, random.Random(0)) == []
    assert augment.hollow([framed(word) for word in "abcdef"], [], 5, random.Random(0)) == []


def composed(seed: int = 0, settings: TransferSettings = TransferSettings()) -> TransferSet:  # noqa: B008
    texts, labels = [row[0] for row in ROWS], [0, 0, 1, 1]
    rng = random.Random(seed)
    return compose(texts, labels, ["another text", texts[0]], ["violin"], NEAR, settings, rng)


def test_a_transfer_set_begins_with_the_rows_and_labels_only_them() -> None:
    made = composed()
    assert made.texts[:4] == [text for text, _ in ROWS]
    assert made.labels.tolist() == [0, 0, 1, 1] + [UNLABELLED] * (len(made.texts) - 4)
    assert "another text" in made.texts
    assert len(set(made.texts)) == len(made.texts) > 20
    assert made.texts == composed().texts
    assert made.texts != composed(1).texts


def test_many_rows_get_fewer_texts_each() -> None:
    assert TransferSettings().of(100) == {"variants": 700, "twins": 200, "splices": 100, "hollow": 70}
    assert sum(TransferSettings(most=5000).of(100_000).values()) == pytest.approx(5000, abs=2)
    assert len(composed(settings=TransferSettings(most=10)).texts) <= 4 + 1 + 10


def test_targets_lean_to_the_true_label_where_there_is_one() -> None:
    wanted = targets(np.array([[0.0, 0.0], [4.0, -4.0]]), np.array([0, UNLABELLED]), trust=0.5)
    assert wanted[0] == pytest.approx([0.75, 0.25])
    assert wanted[1][0] > 0.99


def test_words_of_a_vocabulary_and_their_neighbours() -> None:
    pieces = ["[PAD]", "▁the", "ing", "▁cat", "▁12", "▁dog", "▁naïve"]
    assert common_words(pieces, 2) == ["the", "cat"]
    assert frequent(["The cat, the dog", "cat"]) == ["the", "cat"]
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    near = neighbours(["cat", "dog", "the"], vectors, count=1)
    assert (near.of("cat"), near.of("the")) == (("dog",), ("dog",))
    assert word_counts(["cat cat"], ["the"])["the"] > word_counts(["cat cat"], ["the"])["cat"] == 2


def test_import_needs_no_torch() -> None:
    """The package imports without the extra train."""
    code = (
        "import sys, cascade.lab.networks.transfer; "
        "assert not {'torch', 'transformers', 'sklearn', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
