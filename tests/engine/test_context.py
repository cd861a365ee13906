"""Contexts refuse calls that would make llama.cpp abort the process, and logits that are not numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoding import with_weights
from gguf_maker import make_gguf

from cascade.engine.context import Context, ContextShape
from cascade.engine.weights import Weights
from cascade.errors import ModelError


def tokens(count: int) -> np.ndarray:
    return np.arange(5, 5 + count, dtype=np.int32) % 200


def test_a_row_depends_on_the_whole_prompt_and_not_on_its_batches(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=1024)

    def read(weights: Weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        context = weights.context(ContextShape(1024, 1))
        rows = []
        for parts in ([tokens(40)], [tokens(40)[:7], tokens(40)[7:]], [tokens(40)[1:]]):
            context.clear()
            start = 0
            for part in parts:
                context.feed(part, start, output=True)
                start += len(part)
            rows.append(context.rows()[0].copy())
        return rows[0], rows[1], rows[2]

    whole, in_parts, other = with_weights(path, read)
    np.testing.assert_allclose(whole, in_parts, atol=1e-5)
    assert np.abs(whole - other).max() > 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.feed(tokens(0), 0, output=True), "a batch of 0 tokens; this context takes 1 … 64"),
        (lambda c: c.feed(tokens(65), 0, output=True), "a batch of 65 tokens"),
        (lambda c: c.feed_branches([5], [0], [[3]]), r"branches \[3\] are outside 1 … 2"),
        (lambda c: c.feed_branches([5], [0], [[]]), r"branches \[\] are outside"),
        (lambda c: c.fork(3), "3 branches; this context has 2"),
        (lambda c: c.rows(0), "no 0 logits rows"),
        (lambda c: c.rows(100_000), "no 100000 logits rows"),
        (
            lambda c: c.feed(np.array([10**6], np.int32), 0, output=True),
            "code -1: llama.cpp refused the batch",
        ),
        (
            lambda c: [c.feed(tokens(64), at, output=False) for at in range(0, 6400, 64)],
            "code 1: the context is full",
        ),
    ],
)
def test_a_context_refuses(tmp_path: Path, call: Callable[[Context], object], message: str) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=64)
    with pytest.raises(ModelError, match=message):
        with_weights(path, lambda weights: call(weights.context(ContextShape(64, 1, 2))))


@pytest.mark.parametrize("flash", [True, False])
def test_the_number_of_threads_changes_no_logit(tmp_path: Path, flash: bool) -> None:
    path = make_gguf(tmp_path / "m.gguf", layers=2, width=256, n_ctx=512)

    def read(weights: Weights) -> list[np.ndarray]:
        runs = []
        for pattern in ((1, 1, 1), (2, 2, 2), (2, 1, 2)):
            context = weights.context(ContextShape(512, 2, slots=4, flash=flash))
            context.clear()
            rows = []
            for start, threads in zip((0, 150, 151), pattern, strict=True):
                context.use_threads(threads)
                prompt = tokens(150) if not start else tokens(1)
                context.feed(prompt, start, output=True)
                rows.append(context.rows()[0].copy())
            runs.append(np.stack(rows))
        return runs

    one, two, changing = with_weights(path, read)
    assert np.array_equal(one, two)
    assert np.array_equal(one, changing)


def test_more_outputs_than_the_context_has_room_for_are_refused(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=64)

    def ask(weights: Weights) -> None:
        context = weights.context(ContextShape(64, 1, 2))
        # A vocabulary of millions of tokens would leave a single row.
        context.batch.limits = context.batch.limits._replace(rows=1)
        context.feed_branches([5, 6], [0, 1], [[1], [1]])

    with pytest.raises(ModelError, match="2 outputs in one batch; this context gives at most 1"):
        with_weights(path, ask)


def test_too_many_branches_are_refused(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=64)
    with pytest.raises(ModelError, match="300 branches; a context has at most 255"):
        with_weights(path, lambda weights: weights.context(ContextShape(64, 1, 300)))


def test_logits_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", weights={"output.weight": 3e38})

    def read(weights: Weights) -> None:
        context = weights.context(ContextShape(64, 1))
        context.feed(tokens(3), 0, output=True)
        context.rows()

    with pytest.raises(ModelError, match="NaN or infinity in its output; the weights are broken"):
        with_weights(path, read)


def test_a_non_causal_model_takes_its_whole_context_in_one_batch(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=1024, causal=False)

    def read(weights: Weights) -> int:
        context = weights.context(ContextShape(1024, 1))
        context.feed(tokens(1000), 0, output=True)
        return len(context.rows()[0])

    assert with_weights(path, read) > 256
