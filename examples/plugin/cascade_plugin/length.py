"""Gate `length`: short requests to one candidate, longer ones to another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Literal

from cascade.spec import Draft, GateSettings, ModelFacts, ModelSettings, Problem


class LengthGate(GateSettings):
    """Gives everything to the first candidate that takes a text of this length."""

    by: Literal["length"]
    max_chars: dict[str, int]
    """Candidate → the longest text, in characters, that it takes; a candidate without an entry takes any."""

    def check(
        self,
        candidates: Sequence[str],
        models: Mapping[str, ModelSettings],
        facts: Mapping[str, ModelFacts],
    ) -> Iterator[Problem]:
        """Only candidates have limits, and one of them takes texts of any length."""
        for name in self.max_chars:
            if name not in candidates:
                known = ", ".join(candidates)
                yield Problem(("max_chars", name), f"unknown candidate {name!r}; known: {known}")
        if all(name in self.max_chars for name in candidates):
            yield Problem(("max_chars",), "every candidate has a limit; leave one without, for longer texts")

    async def score(
        self, candidates: Sequence[str], text: str, ask: Callable[[str], Awaitable[Draft | None]]
    ) -> dict[str, float] | None:
        """Return 1 for the first candidate that takes the text, 0 for the others."""
        takers = (name for name in candidates if len(text) <= self.max_chars.get(name, len(text)))
        chosen = next(takers, None)
        return None if chosen is None else {name: float(name == chosen) for name in candidates}
