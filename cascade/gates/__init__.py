"""Whom do I ask? A gate scores candidates before anything is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from cascade.gates import classifier, keywords
from cascade.models.base import Reply
from cascade.spec.gates import GateConfig, KeywordsGate


async def score(
    gate: GateConfig,
    candidates: Sequence[str],
    text: str,
    ask: Callable[[str], Awaitable[Reply | None]],
) -> dict[str, float] | None:
    """Return each candidate's score, summing to 1, or None if the gate could not tell.

    Args:
        gate: the stage's gate.
        candidates: names of models or branches, in the graph's order.
        text: the request.
        ask: performs and records a call of the named model; None if it failed.
    """
    if isinstance(gate, KeywordsGate):
        return keywords.score(gate.rules, candidates, text)
    return classifier.score(candidates, await ask(gate.model))
