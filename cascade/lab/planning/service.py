"""Time and privacy beside money: how long a request takes, and how many leave the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from cascade.lab.planning.inputs import Inputs, Shape
from cascade.lab.planning.measured import Measured
from cascade.policy.plan import Workload

_Weighted = list[tuple[float, float]]  # seconds, and the share of the requests that take so long


class Latency(NamedTuple):
    """Seconds that a request takes: the median and the 95th percentile; measured, or from assumed times."""

    median: float
    p95: float
    source: Literal["measured", "assumed"]


def latencies(inputs: Inputs, measured: Measured | None) -> list[Latency]:
    """Return the time of each option, in the order of `policy.plan.options`."""
    work = inputs.workload(inputs.values)
    times = {shape.name: _times(shape, inputs, measured) for shape in inputs.shapes}
    found = [_latency(times[shape.name], _source(shape.name, measured)) for shape in inputs.shapes]
    if len(inputs.shapes) > 1:
        if measured is None:
            found.append(_latency(_in_turn(work), "assumed"))
        else:
            found.append(_latency(_even(measured.run_seconds), "measured"))
    share, seconds = float(work.expert.answers), float(work.expert.seconds)
    passed = [(seconds + each, (1 - share) * weight) for each, weight in times[inputs.shapes[-1].name]]
    return [*found, _latency([(seconds, share), *passed], "assumed")]


def leaving(inputs: Inputs, measured: Measured | None) -> list[float]:
    """Return the share of the requests that leave the machine, for each option."""
    work = inputs.workload(inputs.values)
    found = [0.0 if shape.local else 1.0 for shape in inputs.shapes]
    if len(inputs.shapes) > 1:
        asked = [float(tier.calls) for tier in work.tiers if not tier.local]
        found.append(max(asked, default=0.0) if measured is None else float(measured.draws["leaves"][0]))
    return [*found, 0.0 if inputs.shapes[-1].local else 1 - float(work.expert.answers)]


def _times(shape: Shape, inputs: Inputs, measured: Measured | None) -> _Weighted:
    known = measured.seconds.get(shape.name) if measured is not None else None
    return _even(known or [float(inputs.values[f"{shape.name}.seconds"])])


def _source(name: str, measured: Measured | None) -> Literal["measured", "assumed"]:
    return "measured" if measured is not None and measured.seconds.get(name) else "assumed"


def _in_turn(work: Workload) -> _Weighted:
    """Return the times of a cascade whose tiers are asked one after the other."""
    found, spent = [], 0.0
    reached = [float(tier.calls) for tier in work.tiers]
    for tier, share, later in zip(work.tiers, reached, [*reached[1:], 0.0], strict=True):
        spent += float(tier.seconds)
        found.append((spent, share - later))
    return found


def _even(seconds: Sequence[float]) -> _Weighted:
    return [(each, 1 / len(seconds)) for each in seconds]


def _latency(times: _Weighted, source: Literal["measured", "assumed"]) -> Latency:
    return Latency(_quantile(times, 0.5), _quantile(times, 0.95), source)


def _quantile(times: _Weighted, share: float) -> float:
    """Return the least time within which `share` of the requests are answered."""
    total = 0.0
    ranked = sorted(times)
    for seconds, weight in ranked:
        total += weight
        if total >= share - 1e-9:
            return seconds
    return ranked[-1][0]
