"""Labels by example, for an embedding model. Used on the decode thread only."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cascade.engine.embed_queue import EmbeddingQueue
from cascade.engine.outside import tokenize_outside
from cascade.engine.ticket import Ticket
from cascade.engine.weights import Weights
from cascade.errors import ModelError

IntArray = npt.NDArray[np.int32]


class ExampleClassifier:
    """Labels by example: the closer a text's embedding is to the center of a label's, the likelier the label.

    This is the nearest-centroid rule with cosine similarity (C. D. Manning et al., "Introduction to
    Information Retrieval", 2008, chapter 14), turned into a distribution by a softmax over similarity /
    temperature.
    """

    def __init__(
        self,
        weights: Weights,
        examples: Mapping[str, Sequence[str]],
        temperature: float,
        queue: EmbeddingQueue,
    ) -> None:
        """Keep `examples` (label → texts); the first request embeds them."""
        self._weights, self._queue = weights, queue
        self._examples, self._temperature = examples, temperature
        self._centers: npt.NDArray[np.float64] | None = None

    def tokenize(self, text: str) -> IntArray:
        """Return the tokens of `text`, shape (tokens,), with those that the model expects around it."""
        return tokenize_outside(self._weights, text, self._queue.embedder.limit, begin=True)

    def distribution(self, tokens: IntArray) -> Generator[Ticket, None, dict[str, float]]:
        """Return label → probability, best first, for a tokenized text; yields between decodes.

        Raises:
            ModelError: a text is empty or too long, or a label's examples cancel each other out.
        """
        if self._centers is None:
            self._centers = yield from self._embed_examples()
        vectors = yield from self._queue.embed([tokens])
        scores = self._centers @ vectors[0].astype(np.float64) / self._temperature
        weight = np.exp(scores - scores.max())
        probability = weight / weight.sum()
        names = list(self._examples)
        order = np.argsort(-probability, kind="stable")
        return {names[i]: float(probability[i]) for i in order}

    def _embed_examples(self) -> Generator[Ticket, None, npt.NDArray[np.float64]]:
        centers = []
        for label, texts in self._examples.items():
            try:
                vectors = yield from self._queue.embed([self.tokenize(text) for text in texts])
            except ModelError as error:
                raise ModelError(f"examples of label {label!r}: {error}") from error
            center = vectors.astype(np.float64).mean(axis=0)
            length = float(np.linalg.norm(center))
            if length < 1e-6:
                raise ModelError(f"the examples of label {label!r} cancel each other out; change them")
            centers.append(center / length)
        return np.array(centers)
