"""Whether a stage may call its models at all, from what is known about them. Pure, like `decide`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from cascade.policy.budget import Spend, over_limit, worst_case
from cascade.policy.decide import move_on
from cascade.records import Decision, RemoteModels, Request, Rule, UnavailableModel
from cascade.spec.schema import Graph, Stage

_OVER: Mapping[str, Rule] = {"cost_usd": "over_cost", "calls": "over_calls", "seconds": "over_seconds"}


class Availability(Protocol):
    """What is known about the models of a stage: a live run asks the models, a replay reads the record."""

    def unavailable(self, name: str) -> str | None:
        """Return why model `name` cannot be called now, or None if it can."""
        ...

    def broken(self, name: str) -> str | None:
        """Return why model `name` is left alone for a while, or None if it is not."""
        ...

    def worst_cost(self, name: str) -> float:
        """Return the most that one call of model `name` may cost, in USD."""
        ...


class Admission(NamedTuple):
    """What a stage may start with.

    Attributes:
        usable: the models of `ask` that can be asked now.
        worst: what the stage may spend at worst, time apart.
        refusal: the decision if the stage may not start; None if it may.
    """

    usable: list[str]
    worst: Spend
    refusal: Decision | None


def admission(graph: Graph, stage: Stage, request: Request, used: Spend, models: Availability) -> Admission:
    """Find out which models `stage` can ask for `request`, and whether it may start.

    Args:
        graph: the graph that `stage` belongs to.
        stage: the stage about to start.
        request: the request being answered.
        used: what the run has used so far.
        models: what is known about the stage's models.
    """
    gate = stage.gate_models
    allowed = [name for name in stage.ask if graph.models[name].local or not request.local_only]
    unavailable = {name: models.unavailable(name) for name in [*gate, *allowed]}
    broken = {name: None if reason else models.broken(name) for name, reason in unavailable.items()}
    usable = [name for name in allowed if unavailable[name] is None and broken[name] is None]
    needed = gate if usable or not stage.ask else list(unavailable)
    worst = worst_case(stage, usable, models.worst_cost)
    refusal = admit(
        graph,
        stage,
        request,
        remote=[
            *(name for name in gate if not graph.models[name].local),
            *([] if allowed else stage.ask),
        ],
        unavailable={name: reason for name in needed if (reason := unavailable[name])},
        broken={name: reason for name in needed if (reason := broken[name])},
        used=used,
        worst=worst,
    )
    return Admission(usable, worst, refusal)


def admit(
    graph: Graph,
    stage: Stage,
    request: Request,
    *,
    remote: Sequence[str],
    unavailable: Mapping[str, str],
    used: Spend,
    worst: Spend,
    broken: Mapping[str, str] | None = None,
) -> Decision | None:
    """Decide whether `stage` may call its models at all; None means it may.

    Args:
        graph: the graph that `stage` belongs to.
        stage: the stage about to start.
        request: the request being answered.
        remote: the remote models without which the stage cannot work.
        unavailable: model → why it cannot be called now, of those without which the stage cannot work.
        used: what the run has used so far.
        worst: what the stage may use at worst.
        broken: model → why its circuit breaker is open, of those without which the stage cannot work.
    """
    if request.local_only and remote:
        return move_on(graph, stage, "local_only", facts=[RemoteModels(models=tuple(remote))])
    missing = [UnavailableModel(model=name, reason=reason) for name, reason in unavailable.items()]
    if broken:
        left_alone = [
            UnavailableModel(model=name, reason=reason, breaker=True) for name, reason in broken.items()
        ]
        return move_on(graph, stage, "breaker_open", facts=[*left_alone, *missing])
    if missing:
        return move_on(graph, stage, "unavailable", facts=missing)
    shortfall = over_limit(graph.limits, used, worst)
    return move_on(graph, stage, _OVER[shortfall.limit], facts=[shortfall]) if shortfall else None
