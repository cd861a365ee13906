"""The numbers of a plan by name, each with where it is from: measured, given, from the graph, or assumed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from cascade.config.load import LoadedGraph
from cascade.errors import RequestError
from cascade.lab.planning.assumptions import (
    DEFAULT_SECONDS,
    DEFAULT_SHARE,
    DEFAULT_TIERS,
    Assumptions,
    Quantity,
    Share,
    TierAssumptions,
)
from cascade.lab.planning.measured import Measured
from cascade.models.openai.prices import lookup
from cascade.policy.plan import Expert, Machine, Tier, Workload, tokens_usd
from cascade.policy.result import baseline_model
from cascade.spec.parts import Price

Source = Literal["measured", "given", "price list", "assumed"]
Values = Mapping[str, Decimal]
_MACHINE = ("machine_usd_an_hour", "machine_utilisation", "machines_at_least")
_EXPERT = (
    "expert_answers", "expert_seconds", "labelled_rows", "usd_a_row", "engineer_days", "engineer_usd_a_day",
    "drifts_a_year", "drift_relabelled", "drift_days",
)  # fmt: skip
_MEANINGS = {
    "usd_a_request": "US dollars that a request costs if it answers all of them",
    "usd_a_call": "US dollars that a call of it costs in the cascade",
    "calls": "calls of it for a request of the cascade",
    "seconds": "seconds that a call takes",
    "answers": "share of the requests that it answers in the cascade",
    "input_usd": "US dollars per million prompt tokens",
    "output_usd": "US dollars per million generated tokens",
    "other_usd": "US dollars a request for calls of no tier",
    "other_seconds": "seconds a request of local calls of no tier",
}


@dataclass(frozen=True)
class Input:
    """A number of a plan.

    Attributes:
        name: its key; those of a tier begin with the tier's name.
        value: the number.
        source: where it is from.
        meaning: what it is, in words.
        low, high: its range or 95 % interval; None where none is known.
        draws: values in resamples of the runs; empty where it is not measured.
        most: the highest possible value; None if there is none.
    """

    name: str
    value: Decimal
    source: Source
    meaning: str
    low: Decimal | None = None
    high: Decimal | None = None
    draws: tuple[Decimal, ...] = ()
    most: Decimal | None = None

    def draw(self, number: int, chance: random.Random) -> Decimal:
        """Return a value: of a resample, or from the triangle over its range with its peak at the value."""
        if self.draws:
            return self.draws[number]
        if self.low is None or self.high is None or self.low == self.high:
            return self.value
        return decimal(chance.triangular(float(self.low), float(self.high), float(self.value)))


class Shape(NamedTuple):
    """What of a tier is no number."""

    name: str
    local: bool


@dataclass(frozen=True)
class Inputs:
    """The tiers, the cheapest first, and all numbers by name."""

    shapes: tuple[Shape, ...]
    by_name: dict[str, Input]

    @property
    def values(self) -> dict[str, Decimal]:
        """The numbers."""
        return {name: each.value for name, each in self.by_name.items()}

    def workload(self, values: Values) -> Workload:
        """Return what the sums read."""
        left, tiers = Decimal(1), []
        for shape in self.shapes:
            calls = values.get(f"{shape.name}.calls", max(Decimal(0), left))
            left -= values.get(f"{shape.name}.answers", Decimal(0))
            alone, call = _usd(shape, values)
            tiers.append(Tier(*shape, alone, call, calls, values[f"{shape.name}.seconds"]))
        return Workload(
            values["requests_a_day"],
            tuple(tiers),
            Machine(*(values[name] for name in _MACHINE)),
            Expert(*(values[name] for name in _EXPERT)),
            values.get("other_usd", Decimal(0)),
            values.get("other_seconds", Decimal(0)),
        )


def decimal(number: float) -> Decimal:
    """Return the decimal that a person would write for `number`."""
    return Decimal(repr(float(number)))


def gather(
    given: Assumptions, loaded: LoadedGraph | None, measured: Measured | None, models: Sequence[str]
) -> Inputs:
    """Return the numbers: what the file gives, else what runs or price lists tell, else a default.

    Args:
        given: the file's assumptions, with defaults.
        loaded: the graph, if there is one.
        measured: what its runs tell, if there are any.
        models: names of the tiers, the strongest last.
    """
    found = _Gathering(given, loaded, measured)
    for name in Assumptions.model_fields:
        default = getattr(given, name)
        if isinstance(default, Quantity):
            found.general(name, default, models[-1])
    shapes = tuple(found.tier(name, last=name == models[-1]) for name in models)
    for name in ("other_usd", "other_seconds"):
        if measured is not None and measured.draws[name][0] > 0:
            found.measure(name, name, _MEANINGS[name])
    return Inputs(shapes, found.by_name)


def tier_names(given: Assumptions, loaded: LoadedGraph | None) -> list[str]:
    """Return the tiers: the graph's models in the order of its stages (persons left out), or the file's.

    The strongest, which savings are measured against, comes last.
    """
    if loaded is None:
        return list(given.tiers or DEFAULT_TIERS)
    graph = loaded.graph
    asked = [name for stage in graph.stages for name in stage.ask if not graph.models[name].is_person]
    names = list(dict.fromkeys(asked))
    top = baseline_model(graph, {name: model.token_price() for name, model in graph.models.items()})
    return names if top is None else [*(name for name in names if name != top), top]


class _Gathering:
    def __init__(self, given: Assumptions, loaded: LoadedGraph | None, measured: Measured | None) -> None:
        self.given, self.loaded, self.measured = given, loaded, measured
        self.by_name: dict[str, Input] = {}

    def general(self, name: str, quantity: Quantity, strongest: str) -> None:
        meaning = (Assumptions.model_fields[name].description or "").rstrip(".")
        key = {"tokens_in": f"{strongest}.tokens_in", "tokens_out": f"{strongest}.tokens_out"}.get(name, name)
        if name not in self.given.model_fields_set and self.knows(key):
            self.measure(name, key, meaning)
        else:
            self.put(name, quantity, "given" if name in self.given.model_fields_set else "assumed", meaning)

    def tier(self, name: str, *, last: bool) -> Shape:
        """Gather the numbers of a tier; return its shape."""
        said = self.given.tiers.get(name)
        assumed = DEFAULT_TIERS.get(name, TierAssumptions()) if self.loaded is None else TierAssumptions()
        if self.loaded is None and said is not None:
            assumed = TierAssumptions()
        said = said or TierAssumptions()
        local = next((tier.local for tier in (said, assumed) if tier.local is not None), self._local(name))
        if not local:
            self._price(name, said, assumed, last=last)
        if self.knows(f"{name}.calls") and said.answers is None:
            self.measure(f"{name}.calls", f"{name}.calls")
        elif not last:
            self._either(name, "answers", said.answers, Share(value=self._share()))
        seconds = assumed.seconds or Quantity(value=DEFAULT_SECONDS[local])
        if said.seconds is None and self.knows(f"{name}.seconds"):
            self.measure(f"{name}.seconds", f"{name}.seconds")
        else:
            self._either(name, "seconds", said.seconds, seconds)
        return Shape(name, local)

    def knows(self, key: str) -> bool:
        return self.measured is not None and key in self.measured.draws

    def put(self, name: str, quantity: Quantity, source: Source, meaning: str = "") -> None:
        low, high = (None if end is None else decimal(end) for end in (quantity.low, quantity.high))
        most = None if quantity.most is None else decimal(quantity.most)
        meaning = meaning or _meaning(name)
        self.by_name[name] = Input(name, decimal(quantity.value), source, meaning, low, high, most=most)

    def measure(self, name: str, key: str, meaning: str = "") -> None:
        assert self.measured is not None
        value, *draws = map(decimal, self.measured.draws[key].tolist())
        ranked = sorted(draws)
        ends = ranked[int(0.025 * len(ranked))], ranked[int(0.975 * len(ranked))]
        low, high = (min(ends[0], value), max(ends[1], value)) if ends[0] != ends[1] else (None, None)
        self.by_name[name] = Input(
            name, value, "measured", meaning or _meaning(name), low, high, tuple(draws)
        )

    def _either(self, name: str, key: str, said: Quantity | None, assumed: Quantity) -> None:
        self.put(f"{name}.{key}", said or assumed, "assumed" if said is None else "given")

    def _share(self) -> float:
        """Return the share of all requests that half of what reaches a tier is."""
        answered = sum(
            (each.value for name, each in self.by_name.items() if name.endswith(".answers")), Decimal(0)
        )
        return float(max(Decimal(0), 1 - answered)) * DEFAULT_SHARE

    def _local(self, name: str) -> bool:
        return self.loaded is not None and self.loaded.graph.models[name].local

    def _price(self, name: str, said: TierAssumptions, assumed: TierAssumptions, *, last: bool) -> None:
        """Gather what a remote tier charges: prices of tokens, or what its recorded calls cost."""
        keys = ("input_usd", "output_usd")
        if said.input_usd is not None and said.output_usd is not None:
            for key, quantity in zip(keys, (said.input_usd, said.output_usd), strict=True):
                self.put(f"{name}.{key}", quantity, "given")
            return
        request = f"{name}.usd_a_request"
        if said.price is None and self.knows(request if last else f"{name}.usd_a_call"):
            self.measure(request, request if last else f"{name}.usd_a_call")
            if self.knows(f"{name}.usd_a_call"):
                self.measure(f"{name}.usd_a_call", f"{name}.usd_a_call")
            return
        price, source = self._listed(name, said.price or assumed.price)
        for key, usd in zip(keys, (price.input, price.output), strict=True):
            self.put(f"{name}.{key}", Quantity(value=usd), source)

    def _listed(self, name: str, model: str | None) -> tuple[Price, Source]:
        price = lookup(model) if model is not None else None
        if price is None and self.loaded is not None:
            price = self.loaded.graph.models[name].token_price()
        if price is None:
            fix = "give its input_usd and output_usd in the file of --assumptions, or run the graph first"
            raise RequestError(f"tier {name!r}: no price is known, and no stored call tells one; {fix}")
        return price, "price list"


def _usd(shape: Shape, values: Values) -> tuple[Decimal, Decimal]:
    """Return what a request to a tier alone, and a call in the cascade, charges."""
    if shape.local:
        return Decimal(0), Decimal(0)
    request = values.get(f"{shape.name}.usd_a_request")
    if request is not None:
        return request, values.get(f"{shape.name}.usd_a_call", request)
    prices = values[f"{shape.name}.input_usd"], values[f"{shape.name}.output_usd"]
    usd = tokens_usd(values["tokens_in"], values["tokens_out"], *prices)
    return usd, usd


def _meaning(name: str) -> str:
    tier, _, key = name.rpartition(".")
    return f"{tier}: {_MEANINGS[key]}" if tier else _MEANINGS[key]
