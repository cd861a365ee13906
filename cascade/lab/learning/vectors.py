"""Vectors of texts by one encoder, each text embedded once, in chunks that `--resume` finds again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.config.references import model_sha256
from cascade.lab.learning.session import Session, StoppedError
from cascade.lab.learning.store import Store

Matrix = NDArray[np.float32]
Embed = Callable[[Sequence[str], Callable[[float], None]], Matrix]
CHUNK = 256  # texts; a chunk takes seconds, and what is interrupted within one is lost


class Vectors:
    """Embeds texts.

    Attributes:
        encoder: the GGUF file.
        max_tokens: longer texts are cut to as many.
        expected: how many texts there will be in all, for the progress.
    """

    def __init__(self, encoder: Path, max_tokens: int, embed: Embed, session: Session, store: Store) -> None:
        """Embed nothing yet.

        Args:
            encoder: the GGUF file.
            max_tokens: longer texts are cut to as many.
            embed: (texts, report of a share) → unit vectors, shape (texts, dimensions).
            session: the clock and the progress.
            store: where chunks are kept.
        """
        self.encoder = encoder
        self.max_tokens = max_tokens
        self.expected = 0
        self._embed = embed
        self._session = session
        self._store = store
        self._known: dict[str, Matrix] = {}
        self._seconds, self._texts = 0.0, 0

    @property
    def texts_per_second(self) -> float:
        """How many texts were embedded a second; 0 as long as none were."""
        return self._texts / self._seconds if self._seconds else 0.0

    def of(self, texts: Sequence[str], *, to_the_end: bool = False) -> Matrix:
        """Return the unit vectors of texts, shape (texts, dimensions).

        Args:
            texts: the texts.
            to_the_end: neither time nor Ctrl-C ends it, because an expert waits for them.

        Raises:
            StoppedError: the call was stopped, or its time was up, before all were embedded.
            ModelError: llama.cpp cannot load the encoder or embed a text.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), CHUNK):
            if not to_the_end and not self._session.seconds_left():
                raise StoppedError(self._unfinished(len(new) - start))
            part = new[start : start + CHUNK]
            report = self._reporting(len(part), len(new) - start, to_the_end=to_the_end)
            self._known.update(zip(part, self._chunk(part, report), strict=True))
        return np.stack([self._known[text] for text in texts])

    def _chunk(self, part: Sequence[str], report: Callable[[float], None]) -> Matrix:
        key = (model_sha256(self.encoder), self.max_tokens, list(part))
        kept = self._store.load("vectors", *key)
        if kept is None:
            start = time.monotonic()
            made = self._embed(part, report)
            seconds = time.monotonic() - start
            self._store.save("vectors", *key, arrays={"vectors": made}, facts={"seconds": seconds})
        else:
            made, seconds = kept[0]["vectors"], float(kept[1]["seconds"])
        self._seconds += seconds
        self._texts += len(part)
        return made

    def _reporting(self, size: int, left: int, *, to_the_end: bool) -> Callable[[float], None]:
        """Return what reports a share of a chunk, and ends it if the call is stopped."""
        done = len(self._known)
        total = max(self.expected, done + left)

        def report(share: float) -> None:
            if self._session.stopped and not to_the_end:
                raise StoppedError(self._unfinished(left))
            self._session.report("embedding", (done + share * size) / total)

        return report

    def _unfinished(self, left: int) -> str:
        done = len(self._known)
        total = max(self.expected, done + left)
        why = "stopped" if self._session.stopped else "the time is up"
        fix = "--resume goes on with them" if self._session.stopped else "give more --minutes, or fewer rows"
        return f"{why}: {done:,} of {total:,} texts are embedded, and nothing is fitted yet; {fix}"
