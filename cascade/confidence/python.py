"""Confidence by a function of yours: of one draft, or of whether two drafts say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from cascade.confidence.agreement import vote
from cascade.errors import ConfigError
from cascade.models.function import Caller, find_source, load_function, parse_reference
from cascade.models.prompted import attempt
from cascade.spec.kinds import Access, ConfidenceSettings, Draft, Measured, Problem


class PythonConfidence(ConfidenceSettings):
    """Confidence from a Python function: of each draft, or of whether two drafts say the same."""

    by: Literal["python"]
    call: str | None = None
    """Function of the request's text and a draft's text that returns a number from 0 to 1, as
    `package.module:function`, or `file.py:function` for a file beside the graph."""
    compare: str | None = None
    """Function of two drafts' texts that returns whether they say the same: the score is then the share of
    drafts that agree."""
    timeout: float = Field(60.0, gt=0.0)
    """Seconds for judging all drafts of a stage; after them there is no estimate."""
    _caller: Caller | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_function(self) -> Self:
        if (self.call is None) == (self.compare is None):
            raise ValueError("give one of 'call' and 'compare'")
        return self

    @property
    def min_drafts(self) -> int:
        """Fewest drafts: comparing takes two."""
        return 2 if self.compare is not None else 1

    @property
    def reference(self) -> str:
        """The function that is given."""
        return self.call or self.compare or ""

    @property
    def summary(self) -> str:
        """The function's name, for drawings."""
        return f"python {self.reference}"

    def accesses(self) -> Iterator[Access]:
        """The function runs for each answer."""
        yield from super().accesses()
        yield Access("runs code", self.reference)

    def inspect(self, base: Path) -> Iterator[Problem]:
        """Check that the function exists; nothing is imported."""
        problems: list[Problem] = []
        key = "call" if self.call is not None else "compare"
        attempt(key, partial(_find, self.reference, base), problems)
        yield from problems

    def prepare(self, base: Path) -> None:
        """Import the function.

        Raises:
            ConfigError: it is missing, or cannot be imported or called.
        """
        function = load_function(parse_reference(self.reference), base)
        if not callable(function):
            raise ConfigError(
                f"confidence by python: {self.reference} is a {type(function).__name__}, no function"
            )
        self._caller = Caller(function, self.reference)

    async def judge(self, prompt: str, drafts: Sequence[Draft | None]) -> Measured:
        """Call the function for each draft, or for pairs of them.

        Raises:
            ValueError: it returned no number from 0 to 1, or neither True nor False.
            Exception: what the function raises; then there is no estimate.
        """
        texts = {
            index: draft.text
            for index, draft in enumerate(drafts)
            if draft is not None and draft.text.strip()
        }
        async with asyncio.timeout(self.timeout):
            if self.compare is not None:
                return await self._compared(texts, len(drafts))
            return [(index, {self.by: await self._score(prompt, text)}) for index, text in texts.items()]

    async def _score(self, prompt: str, text: str) -> float:
        value = await self._asked(prompt, text)
        if isinstance(value, bool) or not isinstance(value, float | int) or not 0.0 <= value <= 1.0:
            raise ValueError(f"{self.call} returned {value!r:.60}; expected a number from 0 to 1")
        return float(value)

    async def _compared(self, texts: Mapping[int, str], drafts: int) -> Measured:
        """Return the majority's first draft; a draft joins the first group whose first says the same."""
        groups: list[str] = []
        keys: list[str | None] = [None] * drafts
        for index, text in texts.items():
            for number, known in enumerate(groups):
                if await self._same(known, text):
                    keys[index] = str(number)
                    break
            else:
                keys[index] = str(len(groups))
                groups.append(text)
        voted = vote(keys)
        return [] if voted is None else [(voted[0], {self.by: voted[1]["agreement"], **voted[1]})]

    async def _same(self, one: str, other: str) -> bool:
        value = await self._asked(one, other)
        if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # NumPy has its own
            raise ValueError(f"{self.compare} returned {value!r:.60}; expected True or False")
        return bool(value)

    async def _asked(self, *texts: str) -> Any:
        if self._caller is None:
            raise RuntimeError(f"{self.reference} has not been loaded; load the graph with Cascade.load")
        return await self._caller.call(*texts)

    def lowest_score(self, label_counts: Sequence[int], drafts: int) -> float:
        """Return the share of a single draft, if drafts are compared."""
        return 1 / max(1, drafts) if self.compare is not None else 0.0


def _find(reference: str, base: Path) -> Path | None:
    return find_source(parse_reference(reference), base)
