"""A small BERT encoder with random weights, as a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cascade.lab.networks.convert_bert import write_bert_gguf

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WIDTH, FEED, LAYERS, POSITIONS = 64, 96, 2, 64


def small_bert(words: Sequence[str], folder: Path) -> Path:
    """Write an encoder that knows `words` and letters; return its file."""
    letters = [start + letter for start in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words, *letters]))}
    spec = {
        "added_tokens": [{"id": i, "content": word, "special": True} for i, word in enumerate(SPECIAL)],
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "model": {"type": "WordPiece", "vocab": vocabulary},
    }
    tokenizer, out = folder / "tokenizer.json", folder / "small-bert.gguf"
    tokenizer.write_text(json.dumps(spec))
    config = {
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "hidden_size": WIDTH,
        "intermediate_size": FEED,
        "max_position_embeddings": POSITIONS,
        "layer_norm_eps": 1e-12,
    }
    write_bert_gguf(_weights(len(vocabulary)), config, tokenizer, out, kind="Q8_0")
    return out


def _weights(words: int) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (words, WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for part, (rows, columns) in {
            "attention.self.query": (WIDTH, WIDTH),
            "attention.self.key": (WIDTH, WIDTH),
            "attention.self.value": (WIDTH, WIDTH),
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (FEED, WIDTH),
            "output.dense": (WIDTH, FEED),
        }.items():
            name = f"encoder.layer.{layer}.{part}"
            shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            name = f"encoder.layer.{layer}.{part}"
            shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    random = np.random.default_rng(5)
    made = {key: random.normal(0, 0.1, shape).astype(np.float32) for key, shape in shapes.items()}
    return {key: values + ("LayerNorm.weight" in key) for key, values in made.items()}
