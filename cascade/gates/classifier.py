"""Gate `classifier`: asks a small model with a closed label set."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Literal

from cascade.config.messages import quoted_names
from cascade.spec.kinds import Draft, GateSettings, ModelFacts, ModelSettings, Problem
from cascade.spec.parts import Name


class ClassifierGate(GateSettings):
    """Scores candidates by the label distribution of a model whose labels are the candidates' names."""

    by: Literal["classifier"]
    model: Name
    """A model of this graph with a closed label set."""

    @property
    def summary(self) -> str:
        """The gate and its model."""
        return f"{self.by} {self.model}"

    @property
    def models(self) -> dict[str, str]:
        """The classifier."""
        return {"model": self.model}

    def check(
        self,
        candidates: Sequence[str],
        models: Mapping[str, ModelSettings],
        facts: Mapping[str, ModelFacts],
    ) -> Iterator[Problem]:
        """Check that the model reports a distribution whose labels are the candidates."""
        model = models.get(self.model)
        if model is None or facts[self.model].unknown:
            return
        labels = facts[self.model].labels
        if reason := model.lacks("labels", self.model, facts[self.model]):
            yield Problem(("model",), reason)
        elif labels is not None and set(labels) != set(candidates):
            text = f"labels of {self.model!r} are not the candidates: labels are {quoted_names(labels)}"
            yield Problem(("model",), f"{text}; candidates are {quoted_names(candidates)}")

    async def score(
        self, candidates: Sequence[str], text: str, ask: Callable[[str], Awaitable[Draft | None]]
    ) -> dict[str, float] | None:
        """Return the candidates' probabilities as the model reports them."""
        return score(candidates, await ask(self.model))


def score(candidates: Sequence[str], reply: Draft | None) -> dict[str, float] | None:
    """Return the candidates' probabilities, scaled to sum to 1.

    None if there is no label distribution, a candidate is not among its labels, or its numbers are none.
    """
    if reply is None or reply.labels is None or not candidates:
        return None
    if any(name not in reply.labels for name in candidates):
        return None
    probabilities = {name: reply.labels[name] for name in candidates}
    total = sum(probabilities.values())
    if not all(value >= 0.0 for value in probabilities.values()) or not 0.0 < total < math.inf:
        return None
    return {name: value / total for name, value in probabilities.items()}
