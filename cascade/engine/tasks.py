"""The prompt contract of a bundled expert, stored as `cascade.tasks` in the metadata of its file."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cascade.engine.outside import tokenize_outside
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.formats.gguf import TASKS_KEY

IntArray = npt.NDArray[np.int32]
_TokenId = Annotated[int, Field(ge=0)]


class ExpertTask(BaseModel):
    """How to ask for one task: the prompt is prefix + text + suffix, and each label is one token.

    Attributes:
        prefix, suffix: token ids around the text.
        max_tokens: length of the longest text that the expert was trained on.
        lowercase: whether the text is lowercased.
        lead: characters put before the text.
        labels: the labels.
        tokens: the token id of each label.
    """

    model_config = ConfigDict(frozen=True)

    prefix: tuple[_TokenId, ...] = Field((), max_length=1024)
    suffix: tuple[_TokenId, ...] = Field((), max_length=1024)
    max_tokens: int = Field(ge=1)
    lowercase: bool = False
    lead: str = ""
    labels: tuple[str, ...] = Field(min_length=1)
    tokens: tuple[_TokenId, ...]

    @model_validator(mode="after")
    def _one_token_each(self) -> ExpertTask:
        if len(set(self.labels)) != len(self.labels) or len(set(self.tokens)) != len(self.labels):
            raise ValueError(
                f"{len(self.labels)} labels need as many different tokens; got {len(self.tokens)}"
            )
        return self

    def prompt(self, weights: Weights, name: str, text: str) -> IntArray:
        """Return the prompt tokens for `text`.

        Raises:
            ModelError: the text is longer than any that the expert was trained on, so it must not answer.
        """
        clean = text.strip().lower() if self.lowercase else text.strip()
        # The higher limit lets the error say how long the text is.
        tokens = tokenize_outside(weights, self.lead + clean, max(self.max_tokens, weights.n_ctx_train))
        if len(tokens) > self.max_tokens:
            raise ModelError(
                f"text has {len(tokens)} tokens; expert {weights.path.stem!r} task {name!r} reads at most "
                f"{self.max_tokens}; send it to a larger model"
            )
        return np.concatenate([
            np.array(self.prefix, np.int32), tokens, np.array(self.suffix, np.int32)
        ])  # fmt: skip


def read_task(weights: Weights, name: str | None) -> tuple[str, ExpertTask]:
    """Return (name, task) of a bundled expert; `name` may be None if the file has a single task.

    Raises:
        ModelError: there is no such task, or the contract does not fit the file.
    """
    text = weights.metadata(TASKS_KEY)
    if text is None:
        raise ModelError(
            f"it has no {TASKS_KEY!r} in its metadata, so no task {name!r}; give 'labels' instead"
        )
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise _broken(str(error)) from error
    if not isinstance(tasks, dict):
        raise _broken(f"expected a mapping of tasks, got {type(tasks).__name__}")
    if name is None and len(tasks) == 1:
        name = next(iter(tasks))
    if name is None or name not in tasks:
        raise ModelError(f"task is {name!r}; this expert knows: {', '.join(tasks)}")
    try:
        task = ExpertTask.model_validate(tasks[name])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(map(str, (name, *first["loc"])))
        raise _broken(f"{location}: {first['msg']}") from error
    largest = max((*task.prefix, *task.suffix, *task.tokens))
    if largest >= weights.n_vocab:
        raise _broken(f"{name}: names token {largest} of {weights.n_vocab}")
    return name, task


def _broken(reason: str) -> ModelError:
    return ModelError(f"its metadata {TASKS_KEY!r} is broken: {reason}; export the expert again")
