"""Label distributions equal those of evaluating every label from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from decoding import drain, with_weights
from gguf_maker import make_gguf

from cascade.engine.context import ContextShape
from cascade.engine.generate import prefill
from cascade.engine.labels import LabelTree, label_tree
from cascade.engine.weights import Weights
from cascade.errors import ModelError

PROMPT = np.array([72, 101, 257, 111, 32, 99, 97, 114], np.int32)


def log_softmax(row: np.ndarray) -> np.ndarray:
    wide = row.astype(np.float64)
    return wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())


def naive(weights: Weights, sequences: Sequence[Sequence[int]]) -> np.ndarray:
    context = weights.context(ContextShape(512, 1))
    scores = []
    for sequence in sequences:
        total = 0.0
        for length, token in enumerate(sequence):
            tokens = np.concatenate([PROMPT, np.array(sequence[:length], np.int32)]).astype(np.int32)
            total += float(log_softmax(drain(prefill(context, tokens)))[token])
        scores.append(total)
    weight = np.exp(np.array(scores) - max(scores))
    return weight / weight.sum()


def exact(weights: Weights, tree: LabelTree) -> dict[str, float]:
    shape = (
        ContextShape(512 + len(tree.inner_nodes), 1, tree.branches)
        if tree.inner_nodes
        else ContextShape(512, 1)
    )
    context = weights.context(shape)
    row = drain(prefill(context, PROMPT))
    return drain(tree.score(context, len(PROMPT), row))


def random_labels(count: int, seed: int) -> list[list[int]]:
    """Return sequences of one to six tokens with many common prefixes, none a prefix of another."""
    random = np.random.default_rng(seed)
    sequences: list[list[int]] = []
    while len(sequences) < count:
        new = random.integers(33, 60 if count < 100 else 120, int(random.integers(1, 7))).tolist()
        if sequences and random.random() < 0.5:
            new = sequences[int(random.integers(len(sequences)))][:2] + new
        if not any(new[: len(old)] == old or old[: len(new)] == new for old in sequences):
            sequences.append(new)
    return sequences


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (7, 1), (40, 2), (150, 3)])
def test_the_tree_equals_every_label_evaluated_from_scratch(tmp_path: Path, count: int, seed: int) -> None:
    path = make_gguf(tmp_path / "m.gguf", seed=seed)
    sequences = random_labels(count, seed)
    names = [f"label {i}" for i in range(count)]
    tree = LabelTree(names, sequences)
    got, want = with_weights(path, lambda weights: (exact(weights, tree), naive(weights, sequences)))
    np.testing.assert_allclose([got[name] for name in names], want, atol=1e-5)
    assert sum(got.values()) == pytest.approx(1.0, abs=1e-12)
    assert list(got.values()) == sorted(got.values(), reverse=True)


def test_more_tips_than_branches_take_several_waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade.engine.labels.MAX_BRANCHES", 7)
    path, sequences = make_gguf(tmp_path / "m.gguf", seed=5), random_labels(60, 5)
    tree = LabelTree([str(i) for i in range(60)], sequences)
    assert len(tree._tips) > 2 * tree.branches
    got, want = with_weights(path, lambda weights: (exact(weights, tree), naive(weights, sequences)))
    np.testing.assert_allclose([got[str(i)] for i in range(60)], want, atol=1e-5)


def test_a_logit_that_is_not_a_number_is_refused() -> None:
    tree = LabelTree(["a", "b"], [[1], [2]])
    for broken in (np.nan, np.inf, -np.inf):
        rows = np.zeros((3, 300), np.float32)
        rows[1, 5] = broken
        with pytest.raises(ModelError, match="NaN or infinity"):
            tree.conditional([-1, -1, -1], rows)


def test_labels_of_one_token_are_the_softmax_restricted_to_them(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    chosen = [65, 66, 67, 90]

    def both(weights: Weights) -> tuple[dict[str, float], np.ndarray]:
        row = drain(prefill(weights.context(ContextShape(512, 1)), PROMPT)).astype(np.float64)
        expected = np.exp(row[chosen] - row[chosen].max())
        return exact(weights, LabelTree(["a", "b", "c", "z"], [[t] for t in chosen])), expected

    got, expected = with_weights(path, both)
    np.testing.assert_allclose([got[n] for n in "abcz"], expected / expected.sum(), atol=1e-6)


def test_labels_of_which_one_is_a_prefix_of_another_end_with_the_end_token(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    labels = ["card", "card lost", "card stolen"]

    def both(weights: Weights) -> tuple[dict[str, float], np.ndarray]:
        end, _ = weights.special_token("eos")
        sequences = [[*weights.tokenize(" " + label, 64).tolist(), end] for label in labels]
        return exact(weights, label_tree(weights, labels, lead=" ", limit=64)), naive(weights, sequences)

    got, want = with_weights(path, both)
    np.testing.assert_allclose([got[label] for label in labels], want, atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "labels without tokens"),
        (["yes", ""], r"labels without tokens: \[''\]"),
        (["yes", "yes"], "not distinct sequences"),
    ],
)
def test_a_label_set_that_cannot_be_told_apart_is_refused(
    tmp_path: Path, labels: list[str], message: str
) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=message):
        with_weights(path, lambda weights: label_tree(weights, labels, lead="", limit=64))
