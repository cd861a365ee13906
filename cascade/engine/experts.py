"""Learned heads on an encoder's vectors: what a model of kind `llamacpp` answers with for a learned expert.

`cascade.formats.expert_file` reads the file, `cascade.engine.head` has the mathematics.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.embed_queue import EmbeddingQueue
from cascade.engine.head import Head
from cascade.engine.outside import tokenize_outside
from cascade.engine.ticket import Ticket
from cascade.errors import ConfigError, ModelError
from cascade.formats.expert_file import ExpertFile, read_arrays, read_expert

if TYPE_CHECKING:
    from cascade.engine.weights import Weights

IntArray = npt.NDArray[np.int32]
# Letters a token for which a text is tokenized; no tokenizer has pieces that are this long on average.
_CHARACTERS_PER_TOKEN = 16
_MOST_BYTES = 4  # of a character


class LearnedTask(NamedTuple):
    """One head of an expert's file: its task, and the tokens that the encoder reads of a text."""

    name: str
    head: Head
    max_tokens: int


class HeadReply(NamedTuple):
    """What a head says of a text.

    Attributes:
        labels: label → probability, best first.
        meta: what the trace records: `confidence` and `known` of the head, tokens `cut` from the text.
        tokens: tokens that the encoder read.
        batch: how many texts were in its decode; 0 for a text whose vector was known.
    """

    labels: dict[str, float]
    meta: dict[str, Any]
    tokens: int
    batch: int


def read_heads(path: Path) -> dict[str, Head]:
    """Return the heads of an expert's file, by task; empty for a file that has none.

    Raises:
        ConfigError: the file cannot be read, or what it says is broken.
        ModelError: a head's numbers are missing, broken or do not fit together.
    """
    expert = read_expert(path)
    return {} if expert is None else _heads(path, expert)


def read_learned_task(path: Path, task: str | None) -> LearnedTask | None:
    """Return a head of an expert's file; None for a file without heads.

    Args:
        path: the file.
        task: the head's task; None where the file has a single one.

    Raises:
        ModelError: there is no such task, or the file is broken.
    """
    try:
        expert = read_expert(path)
        if expert is None:
            return None
        if task is None and len(expert.tasks) == 1:
            task = next(iter(expert.tasks))
        if task is None or task not in expert.tasks:
            raise ModelError(f"task is {task!r}; this expert knows: {', '.join(expert.tasks)}")
        one = expert.model_copy(update={"tasks": {task: expert.tasks[task]}})
        return LearnedTask(task, _heads(path, one)[task], expert.max_tokens)
    except ConfigError as error:
        raise ModelError(str(error)) from error


def encoder_tokens(weights: Weights, text: str, limit: int) -> tuple[IntArray, int]:
    """Return the tokens of `text` that an encoder reads, and how many were cut off at the end.

    Those that stand around every text are among them. Of a text that is far too long only the beginning is
    tokenized; then the number that was cut off is estimated from its length.

    Raises:
        ModelError: the text is not valid Unicode.
    """
    text = text.strip()
    begun = text[: limit * _CHARACTERS_PER_TOKEN]
    tokens = tokenize_outside(weights, begun, _MOST_BYTES * limit, begin=True)
    seen = len(tokens)
    around = len(weights.tokenize("", limit, begin=True))
    if len(tokens) > limit:
        tokens = np.append(tokens[: limit - 1], tokens[-1])
    unseen = round((len(text) - len(begun)) * (seen - around) / max(1, len(begun)))
    return tokens, seen - len(tokens) + unseen


class HeadClassifier:
    """A head on the vectors of a loaded encoder."""

    def __init__(self, weights: Weights, learned: LearnedTask, queue: EmbeddingQueue) -> None:
        """Put `learned` on the encoder `weights`, whose vectors `queue` gives.

        Raises:
            ModelError: the head was made for vectors of another size.
        """
        size = queue.embedder.size
        if learned.head.size != size:
            raise ModelError(
                f"its head {learned.name!r} takes vectors of {learned.head.size} numbers and its encoder "
                f"gives {size}; learn the expert again"
            )
        self._weights, self._learned, self._queue = weights, learned, queue

    def answer(self, text: str, *, alone: bool) -> Generator[Ticket, None, HeadReply]:
        """Answer a text; yields while it waits for the text's vector.

        Args:
            text: the text; one that is too long is cut.
            alone: whether the answer must not depend on what else is asked.

        Raises:
            ModelError: the text is not valid Unicode, or its vector cannot be computed.
        """
        limit = min(self._learned.max_tokens, self._queue.embedder.limit)
        tokens, cut = encoder_tokens(self._weights, text, limit)
        ticket = self._queue.request(tokens, alone=alone)
        if not ticket.done:
            yield ticket
        head = self._learned.head
        answer = head.answer(ticket.result(), text)
        order = np.argsort(-answer.probabilities, kind="stable")
        labels = {head.labels[index]: float(answer.probabilities[index]) for index in order}
        meta = {"confidence": answer.confidence, "known": answer.known}
        return HeadReply(labels, meta | ({"cut": cut} if cut else {}), len(tokens), ticket.batch)


def _heads(path: Path, expert: ExpertFile) -> dict[str, Head]:
    arrays = read_arrays(path, expert)
    return {name: Head.read(task.labels, task.head, arrays[name]) for name, task in expert.tasks.items()}
