"""How one configured model answers: as an expert's task, over a label set, or in free text.

Lives on the decode thread. `Session.answer` is the job that the worker steps through.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.config.gguf import TASKS_KEY
from cascade.config.schema import LlamaCppModel
from cascade.engine.context import Context, Shape
from cascade.engine.generate import Sampling, generate, prefill
from cascade.engine.labels import LabelTree, label_tree, task_tree
from cascade.engine.render import Renderer
from cascade.engine.tasks import Task, read_task
from cascade.engine.threads import default_threads
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.records import Token

IntArray = npt.NDArray[np.int32]
Steps = Generator[None, None, "Answer"]


class Question(NamedTuple):
    """The request as it came, the user message made of it, and which sample is asked for."""

    text: str
    message: str
    sample: int = 0
    emit: Callable[[str], object] | None = None


class Answer(NamedTuple):
    """A label with its distribution, or a text with its tokens."""

    text: str
    tokens_in: int
    tokens_out: int
    labels: dict[str, float] | None
    tokens: tuple[Token, ...]
    meta: dict[str, Any]


class Session:
    """A loaded file with the settings of one model of a graph."""

    def __init__(self, weights: Weights, config: LlamaCppModel, labels: Sequence[str] | None) -> None:
        """Prepare the prompt, the labels and the size of the context.

        Raises:
            ModelError: the file does not fit the settings.
        """
        self.weights = weights
        self._config = config
        self._limit = min(config.n_ctx, weights.n_ctx_train)
        self._threads = config.n_threads or default_threads(weights.size)
        self._task: tuple[str, Task] | None = None
        self._tree: LabelTree | None = None
        if config.task is not None or (config.labels is None and weights.metadata(TASKS_KEY) is not None):
            self._task = read_task(weights, config.task)
            self._tree = task_tree(self._task[1].labels, self._task[1].tokens)
        else:
            self._renderer = Renderer(weights)
            # A tokenizer that puts no space before a text itself expects one between prompt and label.
            self._lead = "" if self._renderer.chat or weights.spaced else " "
            if labels is not None:
                self._tree = label_tree(weights, labels, lead=self._lead, limit=self._limit)
        self._check()

    def answer(self, question: Question) -> Steps:
        """Answer `question`; yields between decodes.

        Raises:
            ModelError: the prompt does not fit, or the model computes NaN.
        """
        prompt = self._prompt(question)
        if self._tree is not None:
            return self._score(self._tree, prompt)
        return self._write(prompt, question)

    def _check(self) -> None:
        long = self._tree is not None and self._tree.inner
        if not self.weights.causal and (self._tree is None or long):
            raise ModelError("it is not a causal model: it can only score labels of one token")
        if long and not self.weights.branching:
            raise ModelError("it is a recurrent model: it can only score labels of one token")

    def _prompt(self, question: Question) -> IntArray:
        if self._task is not None:
            prompt = self._task[1].prompt(self.weights, self._task[0], question.text)
        else:
            prompt = self._renderer.tokens(self._config.system, question.message, self._limit)
        room = self._limit - (self._tree.depth if self._tree else 0)
        if not 0 < len(prompt) <= room:
            raise ModelError(
                f"prompt has {len(prompt)} tokens; expected 1 to {room} (n_ctx is "
                f"{self._config.n_ctx}, the model was made for {self.weights.n_ctx_train}); "
                "shorten it or send it to a larger model"
            )
        return prompt

    def _context(self) -> Context:
        tree = self._tree
        if tree is None or not tree.inner:
            return self.weights.context(Shape(self._limit, self._threads))
        # The cells of all inner nodes come on top: the prompt may use the whole limit.
        return self.weights.context(Shape(self._limit + len(tree.inner), self._threads, tree.branches))

    def _score(self, tree: LabelTree, prompt: IntArray) -> Steps:
        context = self._context()
        row = yield from prefill(context, prompt)
        distribution = yield from tree.score(context, len(prompt), row)
        best = next(iter(distribution))
        return Answer(best, len(prompt), 1, distribution, (), self._meta("labels", "label"))

    def _write(self, prompt: IntArray, question: Question) -> Steps:
        config = self._config
        room = self._limit - len(prompt) + 1  # the last token needs no cell
        sampling = Sampling(min(config.max_tokens, room), config.temperature, config.seed + question.sample)
        text = yield from generate(self.weights, self._context(), prompt, sampling, question.emit)
        meta = self._meta("text", text.finish)
        return Answer(text.text, len(prompt), len(text.tokens), None, text.tokens, meta)

    def _meta(self, decode: str, finish: str) -> dict[str, Any]:
        return {
            "n_threads": self._threads,
            "decode": decode,
            "batch": 1,
            "finish_reason": finish,
            "truncated": finish == "length",
        }
