"""Confidence from how many drafts (samples, models) give the same answer."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from cascade.confidence import validity
from cascade.confidence.meaning import MOST_CHARACTERS, merged
from cascade.confidence.same import normalise
from cascade.config.references import local_model_path
from cascade.errors import ConfigError
from cascade.extras import require
from cascade.formats.expert_file import check_encoder
from cascade.formats.markdown import unfenced
from cascade.formats.patterns import compile_re2
from cascade.formats.schemas import parse_json
from cascade.spec.kinds import Access, ConfidenceSettings, Draft, Measured, Problem
from cascade.spec.parts import Config

_ENCODER = "bundled:encoder"
_MAX_PATTERN = 2000  # characters
_JSON = "json "  # in front of the key of JSON: no text in its normal form begins so and goes on as JSON does


class AnswerPart(Config):
    """Which part of a draft is its answer; one of the two keys."""

    model_config = ConfigDict(populate_by_name=True)

    regex: str | None = Field(None, min_length=1, max_length=_MAX_PATTERN)
    """Pattern (RE2) of the answer: its last match in the draft, or the match's first group if it has one."""
    pointer: str | None = Field(None, alias="json", min_length=1)
    """Field of a JSON object that is the answer; `/a/0/b` (RFC 6901) is one further down."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.regex is None) == (self.pointer is None):
            raise ValueError("give one of 'regex' and 'json'")
        return self


class AgreementConfidence(ConfidenceSettings):
    """Confidence from the share of drafts (samples, models) that give the same answer."""

    by: Literal["agreement"]
    answer: Literal["last_line"] | AnswerPart | None = None
    """The part of a draft that is compared: its last line, a match, or a field; default: all of it."""
    similarity: float | None = Field(None, gt=0.0, le=1.0)
    """Least cosine of two free texts that count as the same answer; default: only equal ones do. Texts that
    differ in a number or a negation never do."""
    encoder: str = _ENCODER
    """The embedding model that `similarity` is measured with: as a local model's `path`."""
    _model: Any = PrivateAttr(None)

    @property
    def min_drafts(self) -> int:
        """A single draft agrees with itself."""
        return 2

    def inspect(self, base: Path) -> Iterator[Problem]:
        """Check the pattern and the encoder."""
        pattern = self.answer.regex if isinstance(self.answer, AnswerPart) else None
        try:
            _compiled(pattern or "")
        except ValueError as error:
            yield Problem(("answer", "regex"), str(error))
        if self.similarity is None:
            if self.encoder != _ENCODER:
                text = "'encoder' has no effect without 'similarity'; give that, 0.9 for instance, or drop it"
                yield Problem(("encoder",), text)
            return
        try:
            path = local_model_path(self.encoder, base)
            if path is not None:
                check_encoder(path)
        except ConfigError as error:
            yield Problem(("encoder",), str(error))

    def accesses(self) -> Iterator[Access]:
        """The encoder's file, if texts are compared by their vectors."""
        yield from super().accesses()
        if self.similarity is not None:
            yield Access("downloads" if self.encoder.startswith("hf:") else "reads file", self.encoder)

    def prepare(self, base: Path) -> None:
        """Make the encoder's model, which loads its file when drafts are first compared.

        Raises:
            ConfigError: the extra `local` is not installed, or the file is missing or broken.
        """
        if self.similarity is None:
            return
        from cascade.models.llamacpp.model import encoder

        require("llama_cpp", "confidence by agreement with 'similarity'", "local")
        self._model = encoder("agreement's encoder", self.encoder, base)

    async def judge(self, prompt: str, drafts: Sequence[Draft | None]) -> Measured:
        """Compare the drafts, free texts also by their vectors if `similarity` is given.

        Raises:
            RuntimeError: `prepare` was not called.
            ModelError: the texts cannot be embedded; then there is no estimate.
        """
        if self.similarity is None:
            return self.measure(drafts)
        if self._model is None:
            raise RuntimeError(f"{self.encoder} has not been loaded; load the graph with Cascade.load")
        keys = [None if draft is None else self._key(draft) for draft in drafts]
        free = {
            key for key, draft in zip(keys, drafts, strict=True) if draft is not None and _is_free(draft, key)
        }
        texts = sorted(key for key in free if key)
        vectors = dict(zip(texts, await self._model.embed(texts), strict=True)) if len(texts) > 1 else {}
        voted = vote(merged(keys, vectors, self.similarity))
        return [] if voted is None else [voted]

    def measure(self, drafts: Sequence[Draft | None]) -> list[tuple[int, Mapping[str, float]]]:
        """Return the majority's first draft; empty without two answers."""
        voted = vote([None if draft is None else self._key(draft) for draft in drafts])
        return [] if voted is None else [voted]

    def lowest_score(self, label_counts: Sequence[int], drafts: int) -> float:
        """Return the share of a single draft."""
        return 1 / max(1, drafts)

    def _key(self, draft: Draft) -> str | None:
        """Return what a draft is compared by; None where it does not have the part that is asked for."""
        if self.answer is None or draft.tool_calls:
            return answer_key(draft)
        if self.answer == "last_line":
            lines = unfenced(draft.text).split("\n")
            return normalise(next((line for line in reversed(lines) if line.strip()), ""))
        if self.answer.regex is not None:
            return _last_match(self.answer.regex, draft.text)
        return _field(self.answer.pointer or "", draft.text)


def answer_key(draft: Draft) -> str:
    """Return what a whole draft is compared by: JSON and tool calls by value, text in its normal form."""
    spelled = validity.canonical_json(draft)
    return normalise(draft.text) if spelled is None else f"{_JSON}{' '.join(spelled.casefold().split())}"


def _is_free(draft: Draft, key: str | None) -> bool:
    """Return whether an answer may be compared by its meaning: words, not labels, JSON or tool calls."""
    if not key or draft.labels is not None or draft.tool_calls or key.startswith(_JSON):
        return False
    return len(key) <= MOST_CHARACTERS and any(map(str.isalpha, key))


def vote(keys: Sequence[str | None]) -> tuple[int, dict[str, float]] | None:
    """Return the index of the majority's first answer and the vote's signals, or None without two answers.

    agreement: share of all asked drafts in the largest group of equal keys. margin: that minus the second
    largest group's share. A failed draft (None, or blank) counts as asked and agrees with nobody, so failures
    never raise agreement. Of equally large groups the one that answered first wins.
    """
    groups = Counter(key for key in keys if key)
    if groups.total() < 2:
        return None
    ranked = groups.most_common(2)
    largest = ranked[0][1]
    second = ranked[1][1] if len(ranked) > 1 else 0
    shares = {"agreement": largest / len(keys), "margin": (largest - second) / len(keys)}
    return keys.index(ranked[0][0]), shares


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    """Return the compiled pattern.

    Raises:
        ValueError: it is none of RE2's.
    """
    try:
        return compile_re2(pattern)
    except ValueError as error:
        raise ValueError(f"{pattern!r:.60} is no pattern of RE2: {error}") from None


def _last_match(pattern: str, text: str) -> str | None:
    compiled = _compiled(pattern)
    found = next(iter(deque(compiled.finditer(text), maxlen=1)), None)
    answer = None if found is None else found.group(1 if compiled.groups else 0)
    return None if answer is None else normalise(answer)


def _field(pointer: str, text: str) -> str | None:
    """Return the key of a field of the JSON `text`; None where it has none."""
    try:
        value = parse_json(unfenced(text))
    except ValueError:
        return None
    names = [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]
    for name in names if pointer.startswith("/") else [pointer]:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return normalise(value) if isinstance(value, str) else normalise(json.dumps(value, sort_keys=True))
