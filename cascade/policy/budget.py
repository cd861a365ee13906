"""Spend is a fold of the trace; the next stage's worst case is priced before it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cascade.records import LimitShortfall, Request, Step
from cascade.spec.parts import Limits
from cascade.spec.schema import Graph, Stage


class Spend(NamedTuple):
    """What a run has used, or what a stage may use at worst: USD, seconds, model calls."""

    cost_usd: float = 0.0
    seconds: float = 0.0
    calls: int = 0


class Budget(NamedTuple):
    """The most that may be spent in `scope` on one UTC day, in USD."""

    scope: str
    day_usd: float


def day_budgets(
    graph: Graph, request: Request, granted: Callable[[str], float | None] | None = None
) -> list[Budget]:
    """Return the budgets of a day that pay for `request`: the graph's, and its account's over all graphs.

    `granted` says what an account may spend by its key; the less of that and of what the graph says holds.
    """
    limits, account = graph.budgets, request.account
    budgets = [] if limits.day_usd is None else [Budget(f"graph:{graph.name}", limits.day_usd)]
    if account is not None:
        own = limits.accounts.get(account)
        by_graph = limits.account_day_usd if own is None else own.day_usd
        by_key = granted(account) if granted else None
        amounts = [usd for usd in (by_graph, by_key) if usd is not None]
        budgets += [Budget(f"account:{account}", min(amounts))] if amounts else []
    return budgets


def spent(trace: Sequence[Step]) -> Spend:
    """Return what the steps of `trace` used; time that a run waited for a person does not count."""
    calls = [call for step in trace for call in step.calls]
    return Spend(sum(call.cost_usd for call in calls), sum(step.seconds for step in trace), len(calls))


def worst_case(stage: Stage, usable: Sequence[str], price: Callable[[str], float]) -> Spend:
    """Return what `stage` may use at worst, time apart: its gate, and the dearest models that it may ask.

    Args:
        stage: the stage about to start.
        usable: the models among which it asks.
        price: the worst case of one call of a model, in USD.
    """
    top = stage.gate.top if stage.gate else len(usable)
    dearest = sorted(map(price, usable), reverse=True)[:top]
    gate = stage.gate_models
    calls = len(gate) + stage.samples * len(dearest)
    return Spend(sum(map(price, gate)) + stage.samples * sum(dearest), calls=calls)


def over_limit(limits: Limits, used: Spend, worst: Spend) -> LimitShortfall | None:
    """Return the limit that keeps a stage whose worst case is `worst` from starting, or None.

    A stage needs only some time left, not its worst time: its calls are cut off when time is used up.
    """
    if limits.cost_usd is not None and used.cost_usd + worst.cost_usd > limits.cost_usd:
        return LimitShortfall(
            limit="cost_usd", allowed=limits.cost_usd, used=used.cost_usd, worst_case=worst.cost_usd
        )
    if limits.calls is not None and used.calls + worst.calls > limits.calls:
        return LimitShortfall(limit="calls", allowed=limits.calls, used=used.calls, worst_case=worst.calls)
    if limits.seconds is not None and used.seconds >= limits.seconds:
        return LimitShortfall(limit="seconds", allowed=limits.seconds, used=used.seconds, worst_case=0.0)
    return None
