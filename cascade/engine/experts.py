"""Learned heads on an encoder's vectors: what a model of kind `llamacpp` answers with for a learned expert.

`cascade.formats.expert_file` reads the file, `cascade.engine.head` has the mathematics.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.embed_queue import EmbeddingQueue
from cascade.engine.fields import Extractor, read_extractor
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
    """One task of an expert's file.

    Attributes:
        name: its name.
        head: answers with a label, or with a JSON object.
        max_tokens: tokens that the encoder reads of a text.
    """

    name: str
    head: Head | Extractor
    max_tokens: int


class HeadReply(NamedTuple):
    """What a head says of a text.

    Attributes:
        text: the best label, or a JSON object.
        labels: label → probability, best first; None for an object.
        meta: what the trace records: `confidence` and `known` of the head, tokens `cut` from the text; of an
            object `confidence`, and by field in `fields`.
        tokens: tokens that the encoder read.
        batch: how many texts were in its decode; 0 for a text whose vector was known.
    """

    text: str
    labels: dict[str, float] | None
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
        own = {name: each for name, each in expert.tasks.items() if name == task}
        if not own[task].labels:
            own |= {name: each for name, each in expert.tasks.items() if name.startswith(f"{task}/")}
        one = expert.model_copy(update={"tasks": own})
        return LearnedTask(task, _parts(path, one, task), expert.max_tokens)
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
        if learned.head.size not in (size, None):
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
        head, vector = self._learned.head, ticket.result()
        reply = _object(head, vector, text) if isinstance(head, Extractor) else _label(head, vector, text)
        meta = reply[2] | ({"cut": cut} if cut else {})
        return HeadReply(reply[0], reply[1], meta, len(tokens), ticket.batch)


_Said = tuple[str, dict[str, float] | None, dict[str, Any]]


def _label(head: Head, vector: npt.NDArray[np.float32], text: str) -> _Said:
    answer = head.answer(vector, text)
    order = np.argsort(-answer.probabilities, kind="stable")
    labels = {head.labels[index]: float(answer.probabilities[index]) for index in order}
    return next(iter(labels)), labels, {"confidence": answer.confidence, "known": answer.known}


def _object(extractor: Extractor, vector: npt.NDArray[np.float32], text: str) -> _Said:
    found = extractor.answer(vector, text)
    written = json.dumps(found.answer, ensure_ascii=False)
    return written, None, {"confidence": found.confidence, "fields": found.fields}


def _parts(path: Path, expert: ExpertFile, task: str) -> Head | Extractor:
    arrays = read_arrays(path, expert)
    own = expert.tasks[task]
    heads = _read(expert, arrays)
    if own.labels:
        return heads[task]
    fields = {name.removeprefix(f"{task}/"): head for name, head in heads.items()}
    return read_extractor(own.head, arrays[task], fields)


def _heads(path: Path, expert: ExpertFile) -> dict[str, Head]:
    return _read(expert, read_arrays(path, expert))


def _read(expert: ExpertFile, arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, Head]:
    return {
        name: Head.read(task.labels, task.head, arrays[name])
        for name, task in expert.tasks.items()
        if task.labels
    }
