"""Embeddings: unit vectors, the same alone and in a batch, pooled as the file specifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import drain, with_weights
from gguf_maker import make_gguf

from cascade import Cascade
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp

TEXTS = ["hello card", "car", "the os said hello", "hello card", "x" * 200]


def embed(weights: Weights, texts: list[str], limit: int = 256) -> np.ndarray:
    tokens = [weights.tokenize(text, 512, begin=True) for text in texts]
    return drain(weights.embedder(limit, 1).embed(tokens))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pooling", [None, 1, 2, 3])
def test_a_batch_gives_the_same_unit_vectors_as_single_texts(
    tmp_path: Path, pooling: int | None, causal: bool
) -> None:
    path = make_gguf(tmp_path / "m.gguf", pooling=pooling, causal=causal)

    def both(weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        return embed(weights, TEXTS), np.concatenate([embed(weights, [text]) for text in TEXTS])

    batch, alone = with_weights(path, both)
    assert batch.shape == (5, 64)
    np.testing.assert_allclose(np.linalg.norm(batch, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(batch, alone, atol=1e-5)
    np.testing.assert_allclose(batch[0], batch[3], atol=1e-5)
    if not (causal and pooling == 2):  # the first token of a causal model does not see the text
        assert batch[0] @ batch[1] < 0.999


def test_pooling_comes_from_the_file_or_fits_the_attention(tmp_path: Path) -> None:
    def pooling(weights: Weights) -> str:
        return weights.embedder(64, 1).pooling

    seen = [
        with_weights(make_gguf(tmp_path / f"{i}.gguf", pooling=given, causal=causal), pooling)
        for i, (given, causal) in enumerate([(None, True), (None, False), (1, True), (2, False), (3, False)])
    ]
    assert seen == ["last", "mean", "mean", "cls", "last"]


def test_the_mean_is_that_of_the_tokens(tmp_path: Path) -> None:
    # One layer whose attention and feed-forward output is zero: a token's vector is its normalized embedding.
    silent = {f"blk.0.{name}.weight": 0.0 for name in ("attn_output", "ffn_down")}
    path = make_gguf(tmp_path / "m.gguf", layers=1, pooling=1, weights=silent)
    vectors = with_weights(path, lambda weights: embed(weights, ["a", "b", "ab"]))
    middle = vectors[0] + vectors[1]
    np.testing.assert_allclose(vectors[2], middle / np.linalg.norm(middle), atol=1e-5)


def test_many_texts_take_several_decodes(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", pooling=1)
    texts = [f"card {i} {'os ' * (i % 7)}" for i in range(150)]
    vectors = with_weights(path, lambda weights: embed(weights, texts))
    again = with_weights(path, lambda weights: embed(weights, texts[::-1]))
    np.testing.assert_allclose(vectors, again[::-1], atol=1e-5)
    assert len(np.unique(vectors.round(4), axis=0)) == 150


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (["hello", ""], {}, "text 1 has 0 tokens; expected 1 to 32; give a text"),
        (["x" * 100], {}, "text 0 has 100 tokens; expected 1 to 32; shorten it"),
        (["a"], {"pooling": 4}, "its pooling type is 4, which gives no embeddings"),
        (["a"], {"weights": {"output_norm.weight": 0.0}}, "its embedding has length 0.0"),
        (["a"], {"weights": {"output_norm.weight": 3e38}}, "its embedding has length (nan|inf)"),
    ],
)
def test_texts_and_models_without_an_embedding_are_refused(
    tmp_path: Path, texts: list[str], settings: dict[str, object], message: str
) -> None:
    path = make_gguf(tmp_path / "m.gguf", **settings)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=message):
        with_weights(path, lambda weights: embed(weights, texts, limit=32))


def model(path: Path, **settings: Any) -> LlamaCpp:
    config = LlamaCppSettings.model_validate({"kind": "llamacpp", "path": path.name, "n_ctx": 256} | settings)
    return LlamaCpp("vectors", config, path.parent)


async def test_a_model_embeds_texts_and_frees_its_weights(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", pooling=1, causal=False)
    vectors = model(path, prompt="query: {text}")
    embeddings = await vectors.embed(["hello", "card"])
    plain = with_weights(path, lambda weights: embed(weights, ["query: hello", "query: card"]))
    np.testing.assert_allclose(embeddings, plain, atol=1e-6)
    with pytest.raises(ModelError, match=r"model 'vectors' .*m.gguf.: text is empty"):
        await vectors.embed(["a", " "])
    with pytest.raises(ModelError, match="text 0 has 308 tokens; expected 1 to 256"):
        await vectors.embed(["x y" * 100 + "x"])
    await vectors.aclose()
    assert (await vectors.embed(["hello"])).shape == (1, 64)  # a later call loads it again
    await vectors.aclose()


async def test_labels_by_example_are_a_distribution_over_the_labels(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", pooling=1, causal=False)
    examples = {"greeting": ["hello", "hello hello"], "bank": ["card os", "card card"], "x": ["xyz"]}
    router = model(path, examples=examples)
    assert build_model("r", router._config, tmp_path).worst_case(Prompt("hello"))[1] == 1
    for text, wanted in (("hello hello hello", "greeting"), ("card card os", "bank")):
        reply = await router.ask(Prompt(text))
        assert reply.labels is not None
        assert set(reply.labels) == set(examples)
        assert sum(reply.labels.values()) == pytest.approx(1.0)
        assert reply.text == next(iter(reply.labels)) == wanted
        assert (reply.meta["decode"], reply.tokens_out) == ("embedding", 0)
    await router.aclose()


async def test_a_classifier_gate_routes_by_example(tmp_path: Path) -> None:
    make_gguf(tmp_path / "m.gguf", pooling=1, causal=False)
    (tmp_path / "g.yaml").write_text(
        """
name: g
models:
  router: {kind: llamacpp, path: m.gguf, n_ctx: 256, examples: {hi: [hello, hello hello], bank: [card os]}}
  one: {kind: scripted, default: "1"}
  two: {kind: scripted, default: "2"}
stages:
  - {name: route, gate: {by: classifier, model: router, to: {hi: first, bank: second}}}
  - {name: first, ask: [one], escalate: end}
  - {name: second, ask: [two]}
"""
    )
    async with Cascade.load(tmp_path / "g.yaml", record=False) as cascade:
        labels = [(await cascade.ainvoke(text)).text for text in ("hello", "card os")]
    assert labels == ["1", "2"]


@pytest.mark.parametrize("limit", [3, 65, 513, 514, 600])
def test_any_limit_makes_a_context(tmp_path: Path, limit: int) -> None:
    # llama.cpp aborted the process on sizes that are no multiple of the sequences, such as XLM-R's 514.
    path = make_gguf(tmp_path / "mean.gguf", causal=False, pooling=1, n_ctx=1024)
    assert with_weights(path, lambda weights: embed(weights, ["a"], limit=limit)).shape == (1, 64)
