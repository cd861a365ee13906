"""A cascade as a model of another cascade. The inner run is separate; the outer run pays for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Model, OnText, Prompt, Reply, cost
from cascade.policy.result import finish_reason
from cascade.policy.trials import worst_of
from cascade.records import Request, Result
from cascade.spec.kinds import ModelSettings
from cascade.spec.parts import Price
from cascade.spec.schema import Graph

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph

# The cost of a run is not a number of tokens times a price. `billed`, which replaces token counts in pricing,
# therefore counts units of 10⁻¹² dollars; like any price, this one is for a million of them.
UNITS: Final = Price(input=0.0, output=1e-6)


class SupportsAnswer(Protocol):
    """The part of `Cascade` that this module uses."""

    @property
    def config(self) -> Graph:
        """Its graph."""
        ...

    @property
    def models(self) -> Mapping[str, Model]:
        """Its models."""
        ...

    async def answer(self, request: Request) -> Result:
        """Answer a ready request."""
        ...

    async def release(self) -> None:
        """Release its models."""
        ...


class GraphModel:
    """Asks another graph. Has the shape of `cascade.models.base.Model`.

    The outer graph's limits count the inner run as one call. Its price is what it cost; in advance, the inner
    graph's cost limit or the worst case of all its stages, whichever is less.
    """

    def __init__(self, name: str, config: ModelSettings, inner: SupportsAnswer) -> None:
        self.name = name
        self.tier = config.tier
        self.timeout = config.timeout
        self.price: Price | None = UNITS
        self.closed = False
        self.local = config.local
        self._inner = inner

    def unavailable(self) -> str | None:
        """Return None: models that the inner graph cannot call are reported in its own trace."""
        return None

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        """Return zero tokens, and the most that a run can cost in units of `UNITS`."""
        models = self._inner.models

        def price(name: str) -> float:
            return cost(models[name].price, *models[name].worst_case(prompt))

        graph = self._inner.config
        request = prompt.request
        max_usd = sum(worst_of(graph, stage, request, price).cost_usd for stage in graph.stages)
        max_usd += sum(price(stage.shadow.model) for stage in graph.stages if stage.shadow is not None)
        if graph.limits.cost_usd is not None:
            max_usd = min(max_usd, graph.limits.cost_usd)
        return _units(max_usd)

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Run the inner graph; nothing streams, because its answer may not be accepted.

        `meta` holds the inner run's id as `run`, and its status, rule, stage, confidence and number of calls.

        Raises:
            ModelError: the inner run accepted no answer. Its cost is billed, and `run` is its id.
        """
        metadata = {"asked_by": self.name, "sample": prompt.sample}
        inner = {"local_only": self.local, "account": None, "metadata": metadata}
        result = await self._inner.answer(prompt.request.model_copy(update=inner))
        billed = _units(result.cost_usd)
        if result.status != "accepted" or result.text is None:
            raise ModelError(
                f"model {self.name!r}: graph {result.graph} accepted no answer ({result.status} by rule "
                f"{result.rule}); see its run {result.run}",
                billed,
                run=result.run,
            )
        calls = [call for step in result.trace for call in step.calls]
        answers = [call for call in calls if (call.model, call.text) == (result.model, result.text)]
        if on_text is not None:
            on_text(result.text)
        return Reply(
            text=result.text,
            tokens_in=sum(call.tokens_in for call in calls),
            tokens_out=sum(call.tokens_out for call in calls),
            tokens=answers[-1].tokens if answers else (),
            tool_calls=result.tool_calls,
            meta=_meta(result, len(calls)),
            billed=billed,
        )

    async def aclose(self) -> None:
        """Release the inner graph's models."""
        await self._inner.release()


def build_models(
    loaded: LoadedGraph, make: Callable[[LoadedGraph], SupportsAnswer], names: Iterable[str] | None = None
) -> dict[str, Model]:
    """Return the models of a graph, or those called `names`, and get its confidence methods ready.

    Args:
        loaded: the graph.
        make: makes the cascades among the models.
        names: the models to build; default: all.

    Raises:
        ConfigError: a file, label set or function that the graph names does not exist or is broken.
    """
    for stage in loaded.graph.stages:
        if stage.confidence is not None:
            stage.confidence.prepare(loaded.base)
    models: dict[str, Model] = {}
    for name in loaded.graph.models if names is None else names:
        config = loaded.graph.models[name]
        if name in loaded.nested:
            models[name] = GraphModel(name, config, make(loaded.nested[name]))
        else:
            models[name] = build_model(name, config, loaded.base, loaded.facts.get(name))
    return models


def _units(usd: float) -> tuple[int, int]:
    return 0, math.ceil(usd * 1e6 / UNITS.output - 1e-6)


def _meta(result: Result, calls: int) -> dict[str, Any]:
    return {
        "run": result.run,
        "graph": result.graph,
        "status": result.status,
        "rule": result.rule,
        "stage": result.stage,
        "model": result.model,
        "confidence": result.confidence,
        "calls": calls,
        "finish_reason": finish_reason(result),
    }
