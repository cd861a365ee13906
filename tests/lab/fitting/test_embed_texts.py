"""Embedding many texts at once gives the vectors that a text has alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cascade.config.references import bundled_path
from cascade.errors import ModelError
from cascade.lab.fitting.embed import embed_texts

TEXTS = [
    "where is my card",
    "",
    "a long text, " * 60,
    "где моя карта",
    "where is my card",
    "[CLS] hi",
    "[UNK] \u2e3a ⸺",
]


def embed(texts: list[str], threads: int | None = None, max_tokens: int = 64) -> np.ndarray:
    return embed_texts(bundled_path("encoder"), texts, max_tokens, lambda _, __: None, threads)


def test_vectors_are_those_of_each_text_whatever_stands_beside_it() -> None:
    together = embed(TEXTS, 2)
    assert np.array_equal(together, embed(TEXTS, 1))
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert np.array_equal(together[0], together[4])
    for text, vector in zip(TEXTS, together, strict=True):
        assert float(embed([text])[0] @ vector) > 0.9999


def test_a_long_text_is_cut_and_its_end_does_not_count() -> None:
    head = "the order came late and broken " * 3
    one, other = (embed([head + tail * 30], max_tokens=16) for tail in (" and then", " but still"))
    assert np.array_equal(one, other)


def test_progress_reaches_the_end_and_what_it_raises_ends_the_work() -> None:
    shares: list[float] = []
    embed_texts(bundled_path("encoder"), TEXTS, 64, lambda _, share: shares.append(share))
    assert shares[-1] == 1.0

    def stop(_: str, __: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_texts(bundled_path("encoder"), TEXTS, 64, stop)


def test_what_is_no_encoder_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="text 1"):
        embed(["fine", "bad \ud800"])
    with pytest.raises(ModelError):
        embed_texts(tmp_path / "none.gguf", ["hi"], 64, lambda _, __: None)
    assert embed([]).shape == (0, 384)
