"""The pruned search finds the same best label as the exhaustive one, and its bounds hold."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from decoding import drain, with_weights
from gguf_maker import make_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_labels import PROMPT, random_labels

from cascade.engine import search
from cascade.engine.context import Context, ContextShape
from cascade.engine.generate import prefill
from cascade.engine.labels import LabelTree
from cascade.engine.search import BestLabel, find_best_label
from cascade.engine.weights import Weights
from cascade.errors import ModelError


def both(weights: Weights, tree: LabelTree, branches: int | None = None) -> tuple[BestLabel, np.ndarray]:
    """Return the results of the pruned and of the exhaustive search."""
    available = tree.branches if branches is None else branches
    context = weights.context(ContextShape(512 + len(tree.inner_nodes), 1, available))
    row = drain(prefill(context, PROMPT))
    best = drain(find_best_label(tree, context, len(PROMPT), row))
    row = drain(prefill(context, PROMPT))
    full = weights.context(ContextShape(512 + len(tree.inner_nodes), 1, tree.branches))
    return best, drain(tree.logprobs(full, len(PROMPT), drain(prefill(full, PROMPT))))


def check(tree: LabelTree, best: BestLabel, logprob: np.ndarray) -> None:
    assert best.logprob == pytest.approx(logprob.max(), abs=1e-4)
    assert logprob[tree.labels.index(best.label)] == pytest.approx(logprob.max(), abs=1e-4)
    share = 1 / np.exp(logprob - logprob.max()).sum()
    assert best.low - 1e-6 <= share <= best.high + 1e-6
    assert best.evaluated <= len(tree.inner_nodes)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("gguf")
    return [make_gguf(folder / f"m{seed}.gguf", seed=seed) for seed in range(3)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2), st.integers(2, 90), st.integers(0, 10**6))
def test_the_pruned_search_finds_the_exhaustive_best_label(
    models: list[Path], which: int, count: int, seed: int
) -> None:
    tree = LabelTree([f"label {i}" for i in range(count)], random_labels(count, seed))
    best, logprob = with_weights(models[which], lambda weights: both(weights, tree))
    check(tree, best, logprob)


@pytest.mark.parametrize("count", [2, 300, 1000])
def test_up_to_a_thousand_labels_of_up_to_eight_tokens(models: list[Path], count: int) -> None:
    random = np.random.default_rng(count)
    sequences: dict[tuple[int, ...], None] = {}
    while len(sequences) < count:
        sequences[(*random.integers(33, 100, int(random.integers(1, 8))).tolist(), 256)] = None
    tree = LabelTree([f"label {i}" for i in range(count)], list(sequences))
    best, logprob = with_weights(models[0], lambda weights: both(weights, tree))
    check(tree, best, logprob)


def test_a_certain_model_needs_only_a_few_tokens(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", says=[b"a", b"b", b"c", b"d"])
    sequences = [[97, 98, 99, 100], *([97, 98, 99, 110 + i] for i in range(9))]
    sequences += [[65 + i, 98, 99, 100] for i in range(20)]
    tree = LabelTree([str(i) for i in range(len(sequences))], sequences)
    best, logprob = with_weights(path, lambda weights: both(weights, tree))
    check(tree, best, logprob)
    assert best.label == "0"
    assert best.evaluated < len(tree.inner_nodes) / 3
    assert 0 < best.low < best.high <= 1


def test_labels_of_one_token_need_no_further_decode(models: list[Path]) -> None:
    tree = LabelTree(list("abc"), [[65], [66], [67]])

    def run(weights: Weights) -> BestLabel:
        context = weights.context(ContextShape(512, 1))
        return drain(find_best_label(tree, context, len(PROMPT), drain(prefill(context, PROMPT))))

    best = with_weights(models[0], run)
    assert best.evaluated == 0
    assert best.low == pytest.approx(best.high)
    assert math.exp(best.logprob) < best.low


def test_too_few_branches_fall_back_to_the_whole_tree(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A flat distribution keeps all branches promising, more than two can hold.
    monkeypatch.setattr(search, "WAVE", 4)
    sequences = [[a, b, c, d] for a in (65, 66) for b in (67, 68) for c in (69, 70) for d in (71, 72)]
    tree = LabelTree([str(i) for i in range(16)], sequences)
    tree.branches = 2
    best, logprob = with_weights(models[1], lambda weights: both(weights, tree, 2))
    check(tree, best, logprob)


@pytest.mark.parametrize(
    "call",
    [lambda c: c.copy(0, 3, 1), lambda c: c.copy(3, 1, 1), lambda c: c.copy(0, 0, 1), lambda c: c.drop(0)],
)
def test_branches_outside_the_context_are_refused(tmp_path: Path, call: object) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=64)

    def run(weights: Weights) -> None:
        context: Context = weights.context(ContextShape(64, 1, 2))
        call(context)  # type: ignore[operator]

    with pytest.raises(ModelError, match=r"outside 1 … 2"):
        with_weights(path, run)
