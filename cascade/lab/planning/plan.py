"""Build or buy: the plan of a graph, or of a file of assumptions, with intervals and what it hinges on."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from cascade.config.load import load_graph
from cascade.lab.planning.assumptions import Assumptions, read_assumptions
from cascade.lab.planning.inputs import Input, Inputs, Values, gather, tier_names
from cascade.lab.planning.measured import RESAMPLES, Measured, measure_runs
from cascade.lab.planning.service import Latency, latencies, leaving
from cascade.policy.plan import Option, break_even, options
from cascade.policy.savings import Savings

_TORNADO = 5  # assumptions that are shown
_UNKNOWN = Decimal("0.25")  # how far a number without a range is moved


class Estimate(NamedTuple):
    """A figure with its 95 % interval; the ends are None where nothing tells them."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Choice:
    """A way to answer all requests.

    Attributes:
        option: its exact sums.
        year_usd: what it costs a year once it runs.
        first_year_usd: the same with what it costs once.
        latency: how long a request takes.
        leaves: share of the requests that leave the machine.
        answered: share of the requests that stored runs answered; None where that is not measured.
    """

    option: Option
    year_usd: Estimate
    first_year_usd: Estimate
    latency: Latency
    leaves: float
    answered: float | None = None


@dataclass(frozen=True)
class Swing:
    """What an assumption moves.

    Attributes:
        name: of the number.
        low, high: its ends.
        low_usd, high_usd: what an expert saves in its first year there, against the strongest model alone.
        known: whether the ends are its own range; else it is moved by a quarter.
    """

    name: str
    low: Decimal
    high: Decimal
    low_usd: float
    high_usd: float
    known: bool

    @property
    def width(self) -> float:
        """How much the saving moves."""
        return abs(self.high_usd - self.low_usd)


@dataclass(frozen=True)
class Plan:
    """What `cascade plan` found.

    Attributes:
        subject: what it is about: a graph and its runs, or assumptions.
        inputs: all numbers.
        choices: the ways to answer, the strongest model alone among them; the expert is last.
        break_even: the day on which an expert has paid for itself against the strongest model alone; None if
            it never has. `break_even_low` and `break_even_high` are its interval (None: never).
        pays: share of the draws in which it pays within `horizon_days`; 0 or 1 where nothing was drawn.
        drawn: how many numbers have a range or resamples; without any there is no interval.
        swings: the most important assumptions, the most important first.
        horizon_days: within which an expert must pay.
        runs: how many stored runs it stands on.
        days: from the first to the last of them.
        savings: of these runs, as the dashboard shows them.
    """

    subject: str
    inputs: Inputs
    choices: tuple[Choice, ...]
    break_even: int | None
    break_even_low: int | None
    break_even_high: int | None
    pays: float
    drawn: int
    swings: tuple[Swing, ...]
    horizon_days: int
    runs: int
    days: float
    savings: Savings | None

    def choice(self, role: str) -> Choice | None:
        """Return the choice of that role; None if there is none."""
        return next((choice for choice in self.choices if choice.option.role == role), None)

    @property
    def buy(self) -> Choice:
        """The strongest model alone."""
        return next(choice for choice in self.choices if choice.option.role == "strongest")

    @property
    def build(self) -> Choice:
        """The expert, then the strongest model."""
        return self.choices[-1]

    @property
    def remarks(self) -> list[str]:
        """What these figures stand on, and what they leave out."""
        assumed = [name for name, each in self.inputs.by_name.items() if each.source == "assumed"]
        found = [f"assumed, by default: {', '.join(assumed)}"] if assumed else []
        if self.runs:
            length = f"over {self.days:.0f} days" if self.days >= 1 else "within a day"
            found.append(f"measured in {self.runs:,} stored runs {length}")
        if self.runs and self.inputs.by_name["requests_a_day"].source == "assumed":
            found.append("the stored runs cover less than a day, which tells no requests_a_day: give yours")
        if self.savings is not None:
            found.append(f"the strongest model alone: {self.savings.basis}")
        found.append("quality is not compared here: cascade evaluate and cascade experts challenge do that")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON; amounts in USD."""
        from cascade.lab.planning.verdict import verdict

        return {
            "subject": self.subject,
            "verdict": verdict(self),
            "options": [_option_json(choice) for choice in self.choices],
            "break_even_day": self.break_even,
            "break_even_day_ci": [self.break_even_low, self.break_even_high] if self.drawn else None,
            "pays_within_horizon": self.pays,
            "horizon_days": self.horizon_days,
            "sensitivity": [
                {
                    "name": swing.name, "low": float(swing.low), "high": float(swing.high),
                    "saved_first_year_usd": [swing.low_usd, swing.high_usd], "range_known": swing.known,
                }
                for swing in self.swings
            ],
            "inputs": [
                {
                    "name": each.name, "value": float(each.value), "source": each.source,
                    "range": None if each.low is None or each.high is None
                    else [float(each.low), float(each.high)],
                    "meaning": each.meaning,
                }
                for each in self.inputs.by_name.values()
            ],
            "remarks": self.remarks,
            "runs": self.runs,
            "days": self.days,
            "savings": None if self.savings is None else self.savings.model_dump(),
        }  # fmt: skip


def plan(
    graph: str | Path | None = None,
    *,
    assumptions: str | Path | None = None,
    traces: bool | None = None,
    since: str | None = None,
    trace_db: str | None = None,
    seed: int = 0,
) -> Plan:
    """Compare one strong model, the cascade, and an expert to be trained: money, time and privacy.

    What the file gives holds; the rest is measured in the graph's stored runs, taken from price lists, or
    assumed, and each number says which.

    Args:
        graph: the graph file; without it everything is assumed.
        assumptions: the YAML file, see `assumptions_text`.
        traces: read the graph's stored runs; default: if there are any.
        since: only runs that started then or later: ISO 8601 or an age.
        trace_db: the trace store, a SQLAlchemy URL or a file; default: the usual one.
        seed: seed of the resamples.

    Raises:
        ConfigError: the graph or the file of assumptions is invalid.
        RequestError: `since` is no time, there are no runs although `traces` asks for them, or a price is
            not known.
        TraceError: the trace store cannot be read.
    """
    loaded = None if graph is None else load_graph(graph)
    named = None if loaded is None else loaded.graph.models
    given = Assumptions() if assumptions is None else read_assumptions(assumptions, named)
    models = tier_names(given, loaded)
    measured = None
    if loaded is not None and traces is not False:
        name = loaded.graph.name
        measured = measure_runs(name, models, since=since, trace_db=trace_db, seed=seed)
    _check_asked(loaded is not None, measured is not None, traces, since)
    inputs = gather(given, loaded, measured, models)
    subject = "assumptions" if loaded is None else loaded.graph.name
    return _plan(subject, inputs, measured, given.horizon_days, seed)


def _check_asked(has_graph: bool, has_runs: bool, traces: bool | None, since: str | None) -> None:
    from cascade.errors import RequestError

    option = "--traces" if traces else "--since" if since is not None else None
    if option is None or (traces is False and option is None) or has_runs:
        return
    if not has_graph:
        raise RequestError(f"{option} needs a graph, whose stored runs are read; give its file")
    if traces is False:
        raise RequestError("--since says which stored runs to read, and --no-traces to read none; drop one")
    raise RequestError(f"{option}: no stored run of this graph counts; run it, or give another --trace-db")


def _plan(subject: str, inputs: Inputs, measured: Measured | None, horizon: int, seed: int) -> Plan:
    point = options(inputs.workload(inputs.values))
    drawn = sum(bool(each.draws) or each.low is not None for each in inputs.by_name.values())
    draws = _draws(inputs, seed) if drawn else []
    times, remote = latencies(inputs, measured), leaving(inputs, measured)
    choices = tuple(
        Choice(
            option,
            _estimate(option.year_usd, [each[index].year_usd for each in draws]),
            _estimate(option.first_year_usd, [each[index].first_year_usd for each in draws]),
            times[index],
            remote[index],
            float(measured.draws["answered"][0])
            if measured is not None and option.role == "cascade"
            else None,
        )
        for index, option in enumerate(point)
    )
    buy = next(index for index, option in enumerate(point) if option.role == "strongest")
    even = break_even(point[-1], point[buy])
    days = [break_even(each[-1], each[buy]) for each in draws]
    low, high = _day_ends([even, *days])
    known = days or [even]
    pays = sum(day is not None and day <= horizon for day in known) / len(known)
    runs, length = (0, 0.0) if measured is None else (measured.runs, measured.days)
    savings = None if measured is None else measured.savings
    swings = _swings(inputs, buy)
    return Plan(
        subject, inputs, choices, even, low, high, pays, drawn, swings, horizon, runs, length, savings
    )


def _draws(inputs: Inputs, seed: int) -> list[list[Option]]:
    chance = random.Random(seed)  # noqa: S311 - a simulation
    found = []
    for number in range(RESAMPLES):
        values = {name: each.draw(number, chance) for name, each in inputs.by_name.items()}
        found.append(options(inputs.workload(values)))
    return found


def _estimate(value: Decimal, draws: Sequence[Decimal]) -> Estimate:
    if not draws:
        return Estimate(float(value))
    ranked = sorted(float(each) for each in draws)
    low, high = ranked[int(0.025 * len(ranked))], ranked[min(len(ranked) - 1, int(0.975 * len(ranked)))]
    return Estimate(float(value), min(low, float(value)), max(high, float(value)))


def _day_ends(days: Sequence[int | None]) -> tuple[int | None, int | None]:
    """Return the interval of a day, the point first among `days`; None is never, later than any day."""
    ranked = sorted(math.inf if day is None else day for day in days)
    first = math.inf if days[0] is None else days[0]
    low = min(first, ranked[int(0.025 * len(ranked))])
    high = max(first, ranked[min(len(ranked) - 1, int(0.975 * len(ranked)))])
    return tuple(None if end == math.inf else int(end) for end in (low, high))  # type: ignore[return-value]


def _swings(inputs: Inputs, buy: int) -> tuple[Swing, ...]:
    """Return what each number moves alone, the most important first."""
    values = inputs.values

    def saved(changed: Values) -> float:
        found = options(inputs.workload(changed))
        return float(found[buy].first_year_usd - found[-1].first_year_usd)

    swings = [_swing(each, values, saved) for each in inputs.by_name.values()]
    ranked = sorted(swings, key=lambda swing: -swing.width)
    return tuple(swing for swing in ranked[:_TORNADO] if swing.width > 0)


def _swing(each: Input, values: Values, saved: Callable[[Values], float]) -> Swing:
    known = each.low is not None and each.high is not None
    low = each.low if each.low is not None else each.value * (1 - _UNKNOWN)
    high = each.high if each.high is not None else each.value * (1 + _UNKNOWN)
    high = high if each.most is None else min(high, each.most)
    at_low, at_high = (saved({**values, each.name: end}) for end in (low, high))
    return Swing(each.name, low, high, at_low, at_high, known)


def _option_json(choice: Choice) -> dict[str, Any]:
    option, year, first = choice.option, choice.year_usd, choice.first_year_usd
    return {
        "name": option.name,
        "role": option.role,
        "once_usd": float(option.once_usd),
        "day_usd": float(option.day_usd),
        "year_usd": year.value,
        "year_usd_ci": None if year.low is None else [year.low, year.high],
        "first_year_usd": first.value,
        "first_year_usd_ci": None if first.low is None else [first.low, first.high],
        "median_seconds": choice.latency.median,
        "p95_seconds": choice.latency.p95,
        "seconds_from": choice.latency.source,
        "leaves_the_machine": choice.leaves,
        "answered": choice.answered,
    }
