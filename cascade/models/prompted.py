"""Settings of the kinds of models that read a prompt: its template, its labels, how its answers are drawn."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from cascade.config.references import label_file, referred_labels
from cascade.errors import ConfigError
from cascade.spec.kinds import Access, ModelFacts, ModelSettings, Problem

T = TypeVar("T")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Prompted(ModelSettings):
    """What models that read a prompt have in common."""

    prompt: str | None = None
    """Template of the user message: {text} is the request, {labels} the labels, one a line."""
    system: str | None = None
    """System message, for models with a chat template."""
    labels: list[str] | str | None = None
    """The closed set of answers, as a list; `bundled:NAME#TASK` or `FILE.gguf#TASK`, alone or in it, means
    the labels of an expert's task."""
    max_tokens: int = Field(512, ge=1)
    """Maximum number of tokens in one answer; limits price this worst case."""
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Sample only from the most probable tokens that together have this probability; 1 for all."""
    seed: int = Field(0, ge=0)
    """Seed of the first sample; sample k uses seed + k."""
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(default=[], max_length=16)
    """Strings that end an answer and are not part of it (OpenAI takes at most 4)."""

    def resolve(self, base: Path) -> ModelFacts:
        """Return the labels.

        Raises:
            ConfigError: they are of an unknown expert or task.
        """
        return ModelFacts(self.resolve_labels(base))

    def resolve_labels(self, base: Path) -> tuple[str, ...] | None:
        """Return the closed set of answers, or None if the model answers freely.

        Raises:
            ConfigError: the labels are of an unknown expert or task.
        """
        return resolve_labels(self.labels, base)

    def accesses(self) -> Iterator[Access]:
        """The files whose labels are taken."""
        yield from label_accesses(self.labels)

    def answer_tokens(self, facts: ModelFacts) -> int:
        """Return `max_tokens`."""
        return self.max_tokens

    def repeats(self, facts: ModelFacts) -> str | None:
        """Return that greedy decoding always gives the same answer, at temperature 0."""
        return "its temperature is 0; raise it" if self.temperature == 0 else None

    def answer_settings(self, facts: ModelFacts, *keys: str) -> dict[str, object]:
        """Return the settings that decide an answer, for a fingerprint.

        Those of `keys` count only where they are not at their default, so that a new key leaves the
        fingerprints of older graph files as they were.
        """
        fields = type(self).model_fields
        changed = {
            key: value
            for key in ("top_p", "stop", *keys)
            if (value := getattr(self, key)) != fields[key].default
        }
        return {
            "prompt": self.prompt,
            "system": self.system,
            "labels": facts.labels,
            "temperature": self.temperature,
            **changed,
        }

    def check_prompt(self, facts: ModelFacts) -> Iterator[Problem]:
        """Yield what is wrong with the template of the prompt."""
        yield from template_problems("prompt", self.prompt, ("text", "labels"))
        if "labels" in _PLACEHOLDER.findall(self.prompt or "") and facts.labels is None and not facts.unknown:
            yield Problem(("prompt",), "'{labels}' is used, but the model has no 'labels'")


def resolve_labels(given: Sequence[str] | str | None, base: Path) -> tuple[str, ...] | None:
    """Return the labels that `given` is: a list, those of an expert's task, or such tasks within a list.

    Raises:
        ConfigError: they are of an unknown expert or task.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return referred_labels(given, base)
    groups = (referred_labels(item, base) if _is_reference(item) else (item,) for item in given)
    return tuple(dict.fromkeys(label for group in groups for label in group))


def label_accesses(given: Sequence[str] | str | None) -> Iterator[Access]:
    """Yield the files beside the graph whose labels `given` refers to."""
    for item in [given] if isinstance(given, str) else given or ():
        if (file := label_file(item)) is not None:
            yield Access("reads file", file)


def _is_reference(item: str) -> bool:
    return item.startswith("bundled:") or label_file(item) is not None


def attempt(key: str, read: Callable[[], T], problems: list[Problem]) -> T | None:
    """Return what `read` returns; if it raises `ConfigError`, add that as a problem of `key`."""
    try:
        return read()
    except ConfigError as error:
        problems.append(Problem((key,), str(error)))
        return None


def checked_labels(
    read: Callable[[], tuple[str, ...] | None], given: object, problems: list[Problem]
) -> tuple[str, ...] | None:
    """Return the labels that `read` returns; what is wrong with them, or with `given`, goes to `problems`."""
    labels = attempt("labels", read, problems)
    problems += label_problems(labels, given)
    return labels


def label_problems(labels: tuple[str, ...] | None, given: object) -> Iterator[Problem]:
    """Yield what is wrong with a set of labels, and with the list that it was given as."""
    if labels is None:
        return
    if len(labels) < 2:
        yield Problem(("labels",), f"{len(labels)} labels; give at least two answers to choose from")
    texts: Sequence[str] = given if isinstance(given, list) else []
    for index, label in enumerate(texts):
        if not label.strip():
            yield Problem(("labels", index), f"label {label!r} is blank")
        elif label in texts[:index]:
            yield Problem(("labels", index), f"label {label!r} is given twice")


def template_problems(key: str, template: str | None, known: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with the placeholders of a template, which may be those that are `known`."""
    if template is None:
        return
    used = _PLACEHOLDER.findall(template)
    if "text" not in used:
        yield Problem((key,), "'{text}' is missing, so the request would never be seen")
    for word in used:
        close = difflib.get_close_matches(word, known, n=1)
        if word not in known and close:
            yield Problem((key,), f"unknown placeholder '{{{word}}}'; did you mean '{{{close[0]}}}'?")
