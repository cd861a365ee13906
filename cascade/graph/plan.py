"""What every run of a graph shares: the graph, its models with their guards, and who keeps the budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cascade.graph.guard import EndpointGuard
from cascade.models.base import Model, deployments
from cascade.policy.artifact import Policy
from cascade.policy.calibrate import Calibration
from cascade.policy.decider import Decider
from cascade.policy.result import baseline_model
from cascade.policy.tuned import decider_of
from cascade.records import RaisedThreshold
from cascade.spec.parts import Price
from cascade.spec.schema import Graph

if TYPE_CHECKING:
    from cascade.trace import BudgetBook


@dataclass(frozen=True)
class Plan:
    """A checked graph, its models, calibrations (stage name → map) and policy: what all its runs share.

    `tightened` maps a stage's name to the threshold that drift raised.
    `book` keeps the budgets of a day; without one there are none.
    """

    graph: Graph
    models: Mapping[str, Model]
    calibrations: Mapping[str, Calibration]
    policy: Policy | None = None
    tightened: Mapping[str, RaisedThreshold] = field(default_factory=dict)
    book: BudgetBook | None = field(default=None, repr=False)

    @cached_property
    def decider(self) -> Decider:
        """What decides the runs: the policy, or without one the graph's thresholds."""
        return decider_of(self.graph, self.policy)

    @cached_property
    def baseline(self) -> tuple[str, Price] | None:
        """The model that savings are measured against, and its price; None if no model costs anything."""
        prices = {name: model.token_price() for name, model in self.graph.models.items()}
        name = baseline_model(self.graph, prices)
        price = prices[name] if name is not None else None
        return None if name is None or price is None else (name, price)

    @cached_property
    def guards(self) -> dict[str, tuple[EndpointGuard, ...]]:
        """Model name → one guard for each of its equal endpoints."""
        return {
            name: tuple(EndpointGuard(name, self.graph.models.get(name)) for _ in deployments(model))
            for name, model in self.models.items()
        }

    def endpoints(self, name: str) -> Sequence[tuple[Model, EndpointGuard]]:
        """Return the equal endpoints of a model that can be asked, with their guards; the first, if none."""
        both = list(zip(deployments(self.models[name]), self.guards[name], strict=True))
        return [(model, guard) for model, guard in both if model.unavailable() is None] or both[:1]

    def unavailable(self, name: str) -> str | None:
        """Return why none of a model's endpoints can be asked (a missing key, say), or None."""
        reasons = [model.unavailable() for model in deployments(self.models[name])]
        return None if None in reasons else "; ".join(dict.fromkeys(filter(None, reasons)))

    def broken(self, name: str) -> str | None:
        """Return why all of a model's endpoints are left alone for a while, or None."""
        reasons = [guard.refusal() for _, guard in self.endpoints(name)]
        return None if None in reasons else "; ".join(dict.fromkeys(filter(None, reasons)))
