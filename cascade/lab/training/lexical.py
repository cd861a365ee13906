"""The lexical teacher: TF-IDF of words and characters, with one logistic regression per label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cascade.lab.training.datasets import Split

SHARPNESS = 2.0


def fit(split: Split, seed: int = 0) -> Any:
    """Return a fitted pipeline whose classes are the split's labels in order."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    model = SGDClassifier(loss="log_loss", alpha=3e-6, max_iter=15, tol=None, random_state=seed)
    pipeline = make_pipeline(make_union(words, characters), model)
    pipeline.fit([row.text for row in split.train], [row.label for row in split.train])
    return pipeline


def predict(model: Any, texts: Sequence[str], batch: int = 4096) -> Any:
    """Return logits (float16, rows × labels) whose softmax is a usable distribution over the labels."""
    scores = [model.decision_function(texts[i : i + batch]) for i in range(0, len(texts), batch)]
    return (np.concatenate(scores) / SHARPNESS).astype(np.float16)
