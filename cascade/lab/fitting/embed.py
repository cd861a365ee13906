"""Vectors of many texts by an encoder, as fast as the cores allow.

At run time one decode thread embeds a text when it comes. Here all texts are known beforehand: each core has
a context of its own with one thread, because threads that share a small decode wait for each other, and each
decode holds few texts, because attention is quadratic in all tokens of a decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import local

import numpy as np
import numpy.typing as npt

from cascade.engine.embed import Embedder
from cascade.engine.experts import encoder_tokens
from cascade.engine.threads import available_cores
from cascade.engine.weights import Weights
from cascade.errors import ModelError

Vectors = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
_DECODE_TOKENS = 128  # of several texts in one decode; measured on two cores, with texts of 10 tokens
_DECODES = 8  # that a worker takes at a time
_POLL_SECONDS = 0.2


def embed_texts(
    encoder: Path,
    texts: Sequence[str],
    max_tokens: int,
    report: Callable[[str, float], None],
    threads: int | None = None,
) -> Vectors:
    """Return the unit vectors of `texts`, shape (texts, dimensions); equal texts are embedded once.

    The number of threads does not change a vector.

    Args:
        encoder: the GGUF file.
        texts: any texts; an empty one has the vector of the tokens that stand around every text.
        max_tokens: longer texts are cut to as many.
        report: called with "embedding" and the share that is done; what it raises ends the work.
        threads: cores to use; None: all that this process has.

    Raises:
        ModelError: llama.cpp cannot load the encoder, or a text is not valid Unicode.
    """
    weights = Weights(encoder)
    try:
        return _Work(weights, min(max_tokens, weights.n_ctx_train), report).run(texts, threads)
    finally:
        weights.close()


class _Work:
    """Texts through one context a thread."""

    def __init__(self, weights: Weights, limit: int, report: Callable[[str, float], None]) -> None:
        self._weights = weights
        self._limit = limit
        self._report = report
        self._own = local()
        self._embedders: list[Embedder] = []

    def run(self, texts: Sequence[str], threads: int | None) -> Vectors:
        distinct = list(dict.fromkeys(texts))
        tokens = [self._tokens(index, text) for index, text in enumerate(distinct)]
        parts = _parts(tokens)
        size = self._embedder().size
        vectors = np.empty((len(distinct), size), np.float32)
        pool = ThreadPoolExecutor(max(1, threads or available_cores()))
        try:
            waiting = {pool.submit(self._embed, tokens, part, vectors) for part in parts}
            self._follow(waiting, len(distinct))
        finally:
            pool.shutdown(cancel_futures=True)
            for embedder in self._embedders:
                embedder.close()
        place = {text: index for index, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]]

    def _follow(self, waiting: set[Future[int]], total: int) -> None:
        done = 0
        while waiting:
            ended, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
            done += sum(each.result() for each in ended)
            self._report("embedding", done / total)

    def _tokens(self, index: int, text: str) -> IntArray:
        try:
            return encoder_tokens(self._weights, text, self._limit)[0]
        except ModelError as error:
            raise ModelError(f"text {index}: {error}") from error

    def _embedder(self) -> Embedder:
        """Return this thread's context."""
        if not hasattr(self._own, "embedder"):
            self._own.embedder = self._weights.new_embedder(self._limit, 1)
            self._embedders.append(self._own.embedder)
        embedder: Embedder = self._own.embedder
        return embedder

    def _embed(self, tokens: list[IntArray], part: list[list[int]], vectors: Vectors) -> int:
        embedder = self._embedder()
        for together in part:
            steps = embedder.embed([tokens[index] for index in together])
            try:
                while True:
                    next(steps)
            except StopIteration as end:
                vectors[together] = end.value
        return sum(map(len, part))


def _parts(tokens: list[IntArray]) -> list[list[list[int]]]:
    """Return the work: parts of decodes of indices, of texts about as long as each other."""
    decodes: list[list[int]] = []
    size = 0
    for index in sorted(range(len(tokens)), key=lambda index: (-len(tokens[index]), index)):
        size += len(tokens[index])
        if not decodes or size > _DECODE_TOKENS:
            decodes.append([])
            size = len(tokens[index])
        decodes[-1].append(index)
    return [decodes[start : start + _DECODES] for start in range(0, len(decodes), _DECODES)]
