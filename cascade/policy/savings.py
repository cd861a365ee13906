"""What many runs would have cost at the strongest model alone, with an interval."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cascade.policy.costs import CostCurve, CostEstimate, PricedCall
from cascade.records import Baseline, Record

_Key = tuple[str, str]  # a graph and its baseline model
_NOTHING = CostEstimate(0.0, 0.0, 0.0)


class PricedRun(NamedTuple):
    """A run's graph (without its digest), its own cost in USD, and its baseline."""

    graph: str
    cost_usd: float
    baseline: Baseline


class Savings(Record):
    """What runs cost, and what the strongest model alone would have cost.

    Attributes:
        models: the baseline models.
        runs: how many runs are compared.
        left_out: how many more have only a bound for a baseline, which an earlier version stored.
        asked: in how many the model was asked, so that its cost is known.
        by_calls: how many are estimated from recorded calls of the model, of which there are `calls`.
        by_text: how many are estimated from their texts.
        spent_usd: what these runs cost.
        cost_usd: what the model alone would have cost.
        low_usd, high_usd: its interval: 95 % for what stands on calls, and the stated range of what stands on
        texts.
        share: the share of the baseline's cost that was saved; negative where the runs cost more, None of
        nothing.
        share_low, share_high: its interval.
    """

    models: tuple[str, ...]
    runs: int
    left_out: int
    asked: int
    by_calls: int
    by_text: int
    calls: int
    spent_usd: float
    cost_usd: float
    low_usd: float
    high_usd: float
    share: float | None
    share_low: float | None
    share_high: float | None

    @property
    def basis(self) -> str:
        """What the figure stands on, in words."""
        parts = [f"{self.asked} asked it"] if self.asked else []
        if self.by_calls:
            parts.append(
                f"{self.by_calls} estimated by prompt length from {self.calls} recorded calls (95 % interval)"
            )
        if self.by_text:
            parts.append(f"{self.by_text} estimated from their texts (range)")
        if self.left_out:
            parts.append(f"{self.left_out} more left out: an earlier version stored only a bound")
        return f"{self.runs} run{'' if self.runs == 1 else 's'}: {', '.join(parts)}"


class Alone:
    """What runs would have cost at the strongest model alone; estimates stand on the runs that asked it.

    Args:
        runs: the runs that estimates may stand on.
        calls: recorded calls of the model in other runs; used where all `runs` are of one graph.
    """

    def __init__(self, runs: Sequence[PricedRun], calls: Iterable[PricedCall] = ()) -> None:
        real: dict[_Key, list[PricedCall]] = {_key(run): [] for run in runs}
        for run in runs:
            if (call := call_of(run.baseline)) is not None:
                real[_key(run)].append(call)
        if len(real) == 1:
            next(iter(real.values())).extend(calls)
        self._curves = {key: CostCurve.fit(found) for key, found in real.items()}

    def known(self, run: PricedRun) -> bool:
        """Return whether a run's baseline is known or can be estimated; a bound alone is no estimate."""
        return run.baseline.by != "bound" or self._curves[_key(run)] is not None

    def total(self, runs: Iterable[PricedRun]) -> CostEstimate:
        """Return what `runs`, which must be known, would have cost all together.

        The errors of fits to the calls of different graphs are independent and partly cancel out. Those of
        estimates from texts are of one kind and do not.
        """
        exact, fitted, recorded = _NOTHING, [], _NOTHING
        for key, group in _grouped(runs).items():
            curve = self._curves[key]
            exact = _sum([exact, *(_recorded(run) for run in group if run.baseline.by == "asked")])
            rest = [run for run in group if run.baseline.by != "asked"]
            if curve is not None and rest:
                fitted.append(curve.total([run.baseline.prompt_bytes for run in rest]))
            else:
                recorded = _sum([recorded, *map(_recorded, rest)])
        below = math.hypot(*(each.cost_usd - each.low_usd for each in fitted))
        above = math.hypot(*(each.high_usd - each.cost_usd for each in fitted))
        cost = math.fsum(each.cost_usd for each in fitted)
        return _sum([exact, recorded, CostEstimate(cost, max(0.0, cost - below), cost + above)])

    def savings(self, runs: Sequence[PricedRun]) -> Savings | None:
        """Return what `runs` saved; None if none of their baselines is known."""
        compared = [run for run in runs if self.known(run)]
        if not compared:
            return None
        curves = {key: self._curves[key] for key in _grouped(compared)}
        by_text = [run for run in compared if run.baseline.by == "text" and curves[_key(run)] is None]
        asked = sum(run.baseline.by == "asked" for run in compared)
        spent, total = math.fsum(run.cost_usd for run in compared), self.total(compared)
        return Savings(
            models=tuple(sorted({run.baseline.model for run in compared})),
            runs=len(compared),
            left_out=len(runs) - len(compared),
            asked=asked,
            by_calls=len(compared) - asked - len(by_text),
            by_text=len(by_text),
            calls=sum(
                curve.calls
                if curve
                else max((run.baseline.calls for run in compared if _key(run) == key), default=0)
                for key, curve in curves.items()
            ),
            spent_usd=spent,
            **total._asdict(),
            share=_share(spent, total.cost_usd),
            share_low=_share(spent, total.low_usd),
            share_high=_share(spent, total.high_usd),
        )


def savings(runs: Sequence[PricedRun], calls: Iterable[PricedCall] = ()) -> Savings | None:
    """Return what `runs` saved against their baselines, all estimated anew; see `Alone`."""
    return Alone(runs, calls).savings(runs)


def call_of(baseline: Baseline | None) -> PricedCall | None:
    """Return the recorded call that a baseline is the cost of; None if it is an estimate, or a bound."""
    if baseline is None or baseline.by != "asked" or baseline.bounded:
        return None
    return PricedCall(baseline.prompt_bytes, baseline.cost_usd)


def _key(run: PricedRun) -> _Key:
    return run.graph, run.baseline.model


def _grouped(runs: Iterable[PricedRun]) -> dict[_Key, list[PricedRun]]:
    groups: dict[_Key, list[PricedRun]] = defaultdict(list)
    for run in runs:
        groups[_key(run)].append(run)
    return groups


def _recorded(run: PricedRun) -> CostEstimate:
    """Return what the run recorded of its baseline."""
    cost, low, high = run.baseline.cost_usd, run.baseline.low_usd, run.baseline.high_usd
    return CostEstimate(cost, cost if low is None else low, cost if high is None else high)


def _sum(parts: Sequence[CostEstimate]) -> CostEstimate:
    """Add up estimates whose errors do not cancel out."""
    return CostEstimate(*(math.fsum(values) for values in zip(*parts, strict=True)))


def _share(spent: float, baseline: float) -> float | None:
    return 1 - spent / baseline if baseline > 0 else None
