"""Helper of the tests: runs that go stage by stage without LangGraph, and what they are replayed under."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from cascade.graph.stage import Plan, RunContext, run_stage
from cascade.lab.replays.replay import ReplaySettings
from cascade.models import build_model
from cascade.models.base import Prompt, cost
from cascade.policy.artifact import Policy
from cascade.policy.budget import spent
from cascade.policy.calibrate import Calibration
from cascade.policy.result import summarize
from cascade.records import Request, Result, Step
from cascade.spec.schema import Graph


def plan(
    graph: Graph, calibrations: dict[str, Calibration] | None = None, policy: Policy | None = None
) -> Plan:
    """Return the plan of a graph whose models need no files."""
    models = {name: build_model(name, model, Path()) for name, model in graph.models.items()}
    return Plan(graph, models, calibrations or {}, policy)


def run(plan: Plan, request: Request, called: str = "R1") -> Result:
    """Run a graph stage by stage, as the runtime does; the run's name draws its audits."""

    async def steps() -> list[Step]:
        trace: list[Step] = []
        name: str | None = plan.graph.stages[0].name
        while name is not None:
            trace.append(
                await run_stage(plan, plan.graph.stage(name), request, trace, RunContext(run=called))
            )
            name = trace[-1].decision.to
        return trace

    trace = asyncio.run(steps())
    return Result(
        run=called,
        graph="g@1",
        cost_usd=spent(trace).cost_usd,
        request=request,
        trace=tuple(trace),
        **summarize(plan.graph, trace),
    )


def under(graph: Graph, before: Graph | None = None, **changes: Any) -> ReplaySettings:
    """Return settings that replay runs of `before` (by default of `graph`) under `graph`."""
    models = plan(graph).models

    def price(name: str, request: Request) -> float:
        return cost(models[name].price, *models[name].worst_case(Prompt(request)))

    seconds = (before or graph).limits.seconds
    return ReplaySettings(
        **{"graph": graph, "seconds": seconds, "calibrations": {}, "price": price} | changes
    )
