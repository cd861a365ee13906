"""Makes small experts for tests: a head by class centroids on the bundled encoder, in a real file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf_maker import make_gguf

from cascade.config.references import bundled_path
from cascade.engine.head import VERSION, Head
from cascade.formats.expert_file import write_expert
from cascade.lab.fitting.embed import embed_texts

TICKETS = {
    "card": ["my card is lost", "the card was stolen", "block my debit card"],
    "card lost": ["where is my parcel", "the delivery is late", "track my order"],
    "weather": ["will it rain today", "is it sunny outside", "how cold is it"],
}
MOOD = {"good": ["I love this", "great work", "thank you"], "bad": ["this is awful", "I hate it", "broken"]}


def centroid_head(encoder: Path, examples: Mapping[str, Sequence[str]]) -> Head:
    """A head whose logits are ten times the cosine to the mean of each label's examples."""
    centres = []
    for texts in examples.values():
        mean = embed_texts(encoder, list(texts), 256, lambda *_: None, threads=1).mean(axis=0)
        centres.append(mean / np.linalg.norm(mean))
    weights = np.array(centres, np.float32) * 10
    labels, size = weights.shape
    arrays: dict[str, Any] = {
        "weights": weights,
        "bias": np.zeros(labels, np.float32),
        "ngram_keys": np.zeros(0, np.uint32),
        "ngram_idf": np.zeros(0, np.float32),
        "ngram_weights": np.zeros((0, labels), np.int8),
        "ngram_scales": np.ones(labels, np.float32),
        "means": np.round(weights[:, :8] * 12).astype(np.int8),
        "mean_scales": np.full(labels, 0.01, np.float32),
        "whitening": np.eye(8, size, dtype=np.float32),
        "centre": np.zeros(size, np.float32),
        "known_at": np.linspace(-1, 0, 17).astype(np.float32),
        "confidence_at": np.linspace(-4, 4, 9).astype(np.float32),
        "confidence": np.linspace(0.1, 0.95, 9).astype(np.float32),
    }
    settings = {"version": VERSION, "confidence_weights": [0.2, 0.9, 0.1, 0.05]}
    return Head.read(list(examples), settings, arrays)


def make_expert(
    out: Path,
    tasks: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    *,
    max_tokens: int = 64,
    encoder: Path | None = None,
) -> Path:
    """Write an expert and return its path; `tasks` are task → label → examples."""
    encoder = bundled_path("encoder") if encoder is None else encoder
    chosen = {"tickets": TICKETS} if tasks is None else tasks
    heads = {name: centroid_head(encoder, examples) for name, examples in chosen.items()}
    write_expert(encoder, heads, {name: {"rows": 9} for name in heads}, out, max_tokens)
    return out


def make_small_expert(out: Path) -> Path:
    """Write an expert on a tiny encoder of random weights, whose head has random weights too."""
    encoder = make_gguf(out.with_name("small_encoder.gguf"), causal=False, pooling=1, layers=1, width=32)
    head = centroid_head(encoder, MOOD)
    write_expert(encoder, {"mood": head}, {}, out, 32)
    return out
