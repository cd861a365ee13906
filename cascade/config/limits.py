"""Checks of a graph's limits: under which of them could a stage never start?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cascade.spec.kinds import ModelFacts, Problem
from cascade.spec.schema import Graph, Stage


def worst_drafts(stage: Stage) -> int:
    """Return how many drafts a stage asks for at most."""
    asked = min(stage.gate.top, len(stage.ask)) if stage.gate is not None else len(stage.ask)
    return asked * stage.samples


def limit_problems(graph: Graph, facts: Mapping[str, ModelFacts]) -> Iterator[Problem]:
    """Yield the limits under which a stage could never start, whatever the request."""
    limits = graph.limits
    for stage in graph.stages:
        calls = worst_drafts(stage) + (len(stage.gate.models) if stage.gate is not None else 0)
        if limits.calls is not None and calls > limits.calls:
            text = f"{limits.calls} calls: stage {stage.name!r} makes up to {calls}, so it could never start"
            yield Problem(("limits", "calls"), f"{text}; raise the limit")
        cost = _min_worst_cost(graph, stage, facts)
        if limits.cost_usd is not None and cost > limits.cost_usd:
            text = f"${limits.cost_usd:g}: stage {stage.name!r} may cost ${cost:g} for its answers alone"
            yield Problem(("limits", "cost_usd"), f"{text}; it can never start; raise it or lower max_tokens")


def _min_worst_cost(graph: Graph, stage: Stage, facts: Mapping[str, ModelFacts]) -> float:
    """Return the worst case of a stage for an empty prompt, in USD; an unknown price counts as 0."""
    costs = []
    for name in stage.ask:
        model = graph.models.get(name)
        price = None if model is None else model.token_price()
        tokens = 0 if model is None else model.answer_tokens(facts[name])
        costs.append(tokens * price.output / 1e6 if price else 0.0)
    dearest = sorted(costs, reverse=True)[: stage.gate.top if stage.gate is not None else len(costs)]
    return stage.samples * sum(dearest)
