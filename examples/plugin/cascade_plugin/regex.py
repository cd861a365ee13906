"""Models of kind `regex`: the label whose patterns match a request most often."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from cascade.errors import ModelError
from cascade.models import OnText, Prompt, Reply
from cascade.spec import Evidence, ModelFacts, ModelSettings, Price, Problem


class RegexSettings(ModelSettings):
    """Labels by regular expressions: no weights, no network."""

    kind: Literal["regex"]
    patterns: dict[str, list[str]]
    """Label → regular expressions, matched anywhere in the text without regard to case."""
    local: Literal[True] = True
    """Nothing leaves this process."""

    def resolve(self, base: Path) -> ModelFacts:
        """The labels are those that have patterns."""
        return ModelFacts(tuple(self.patterns))

    def inspect(self, base: Path) -> tuple[ModelFacts, list[Problem]]:
        """Every pattern must compile, and there must be a choice."""
        return self.resolve(base), [*self._problems()]

    def _problems(self) -> Iterator[Problem]:
        if len(self.patterns) < 2:
            yield Problem(("patterns",), f"{len(self.patterns)} labels; give at least two")
        for label, patterns in self.patterns.items():
            for index, pattern in enumerate(patterns):
                try:
                    re.compile(pattern)
                except re.error as error:
                    yield Problem(
                        ("patterns", label, index), f"{pattern!r} is no regular expression: {error}"
                    )

    def build(self, name: str, base: Path, facts: ModelFacts) -> Regex:
        """Return the model."""
        return Regex(name, self)

    def token_price(self) -> Price:
        """A regular expression is free."""
        return Price(input=0.0, output=0.0)

    def lacks(self, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
        """The shares of the matches are a distribution over labels; there are no tokens."""
        if evidence in ("labels", "top_label"):
            return None
        return f"model {name!r} matches patterns and writes no tokens; use 'labels'"

    def repeats(self, facts: ModelFacts) -> str:
        """Patterns take no chance."""
        return "patterns always match the same; ask once"


class Regex:
    """Counts the matches of each label. Has the shape of `cascade.models.base.Model`."""

    def __init__(self, name: str, settings: RegexSettings) -> None:
        self.name = name
        self.tier = settings.tier
        self.local = True
        self.price: Price | None = settings.token_price()
        self.timeout = settings.timeout
        self.closed = True
        self._patterns = {
            label: [re.compile(pattern, re.IGNORECASE) for pattern in patterns]
            for label, patterns in settings.patterns.items()
        }

    def unavailable(self) -> str | None:
        """Return None: it needs nothing."""
        return None

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        """Return no tokens."""
        return 0, 0

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Return the label with the most matches, and each label's share of them.

        Raises:
            ModelError: no pattern matches.
        """
        counts = {
            label: sum(len(pattern.findall(prompt.text)) for pattern in patterns)
            for label, patterns in self._patterns.items()
        }
        total = sum(counts.values())
        if total == 0:
            raise ModelError(f"model {self.name!r}: no pattern matches the text", healthy=True)
        ranked = sorted(counts.items(), key=lambda item: -item[1])
        labels = {label: count / total for label, count in ranked}
        answer = next(iter(labels))
        if on_text is not None:
            on_text(answer)
        return Reply(answer, labels=labels)

    async def aclose(self) -> None:
        """Release nothing."""
