"""Whether a stage may call its models at all, from what is known about them. Pure, like `decide`."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cascade.policy.budget import Spend, worst_case
from cascade.policy.decide import admit
from cascade.records import Decision, Request
from cascade.spec.schema import Graph, Stage


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
