"""The assumptions of a plan: a small YAML file, whose every key has a default that the plan names as such."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError, model_validator

from cascade.config.messages import problems_of, suggest
from cascade.config.source import parse, read_bytes
from cascade.errors import ConfigError
from cascade.models.openai.prices import lookup
from cascade.spec.kinds import Loc, Problem
from cascade.spec.parts import Config, Name

_MOST = 1e12  # of any number: beyond it nobody plans


class Quantity(Config):
    """A number, or `{value, low, high}` where it is not known exactly."""

    most: ClassVar[float | None] = None
    value: float
    low: float | None = None
    high: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_number(cls, given: Any) -> Any:
        return given if isinstance(given, dict | Quantity) else {"value": given}


class Amount(Quantity):
    """A number of at least 0."""

    value: Annotated[float, Field(ge=0.0, le=_MOST)]


class Positive(Quantity):
    """A number above 0."""

    value: Annotated[float, Field(gt=0.0, le=_MOST)]


class Share(Quantity):
    """A number from 0 to 1."""

    most = 1.0
    value: Annotated[float, Field(ge=0.0, le=1.0)]


class Load(Quantity):
    """A share above 0."""

    most = 1.0
    value: Annotated[float, Field(gt=0.0, le=1.0)]


class TierAssumptions(Config):
    """A model of the plan; what is left out is measured, read from the graph, or assumed."""

    local: bool | None = None
    """It runs on a machine of yours, paid by the hour."""
    price: str | None = None
    """A model whose price the package genai-prices knows, such as gpt-5.2."""
    input_usd: Amount | None = None
    """US dollars per million prompt tokens, in place of `price`."""
    output_usd: Amount | None = None
    """US dollars per million generated tokens, in place of `price`."""
    answers: Share | None = None
    """Share of the requests that it answers in the cascade; the last tier answers the rest."""
    seconds: Amount | None = None
    """Seconds that it takes for a request."""


class Assumptions(Config):
    """What a plan stands on where no stored run tells it."""

    requests_a_day: Positive = Positive(value=1000.0)
    """Requests a day."""
    tokens_in: Amount = Amount(value=400.0)
    """Prompt tokens that a model paid by the token reads for a request."""
    tokens_out: Amount = Amount(value=20.0)
    """Tokens that it writes, reasoning included."""
    tiers: dict[Name, TierAssumptions] = Field(default_factory=dict)
    """The models by name, the cheapest first; the last is the strongest, which could answer everything."""
    machine_usd_an_hour: Amount = Amount(value=0.10)
    """Price of a machine that runs the local models, in US dollars an hour."""
    machine_utilisation: Load = Load(value=0.5)
    """Share of its time in which it can be kept busy: requests do not come evenly."""
    machines_at_least: Amount = Amount(value=1.0)
    """Machines that are paid around the clock; 0 if they are there anyway and only their busy time counts."""
    expert_answers: Share = Share(value=0.7)
    """Share of the requests that the trained expert answers itself; the strongest model answers the rest."""
    expert_seconds: Amount = Amount(value=0.012)
    """Seconds that the expert takes for a request."""
    labelled_rows: Amount = Amount(value=1000.0)
    """Rows to label for the expert."""
    usd_a_row: Amount = Amount(value=0.20)
    """What labelling one row costs, in US dollars."""
    engineer_days: Amount = Amount(value=5.0)
    """Days of an engineer until the expert answers requests."""
    engineer_usd_a_day: Amount = Amount(value=700.0)
    """What such a day costs, in US dollars."""
    drifts_a_year: Amount = Amount(value=2.0)
    """How often a year requests or labels change so much that the expert is trained anew."""
    drift_relabelled: Share = Share(value=0.3)
    """Share of the rows that are labelled again each time."""
    drift_days: Amount = Amount(value=1.0)
    """Days of an engineer each time."""
    horizon_days: Annotated[int, Field(ge=1, le=36500)] = 365
    """Days within which an expert must pay for itself to be worth building."""


DEFAULT_TIERS = {
    "haiku": TierAssumptions(local=True, seconds=Amount(value=0.01)),
    "sonnet": TierAssumptions(local=True, seconds=Amount(value=0.03)),
    "opus": TierAssumptions(local=False, price="gpt-5.2", seconds=Amount(value=1.5)),
}
DEFAULT_SECONDS = {True: 0.02, False: 1.5}  # of a call, by whether the model is local
DEFAULT_SHARE = 0.5  # of what reaches a tier other than the last, that it answers


def read_assumptions(path: str | Path, models: Collection[str] | None = None) -> Assumptions:
    """Read a file of assumptions.

    Args:
        path: the YAML file.
        models: the models of the graph, which tiers must name; None without a graph.

    Raises:
        ConfigError: with a line for each problem: `file:line: key: what is wrong with VALUE, what is known`.
    """
    path = Path(path)
    data = read_bytes(path, "file of assumptions", "cascade plan --write-assumptions")
    values, marks = parse(data, str(path), "keys and values, such as requests_a_day: 1000")
    try:
        found = Assumptions.model_validate(values, strict=True)
    except ValidationError as error:
        raise marks.error(problems_of(error, values, Assumptions)) from None
    problems = [each for name, tier in found.tiers.items() for each in _tier_problems(name, tier, models)]
    problems += [problem for place in _quantities(found) if (problem := _range_problem(*place)) is not None]
    answered = [tier.answers.value for tier in found.tiers.values() if tier.answers is not None]
    if sum(answered) > 1 + 1e-9:
        text = f"their shares of `answers` add up to {sum(answered):g}; expected at most 1: lower one"
        problems.append(Problem(("tiers",), text))
    if problems:
        raise marks.error(problems)
    return found


def _quantities(part: Config, loc: Loc = ()) -> Iterator[tuple[Loc, Quantity]]:
    for name in part.model_fields_set:
        value = getattr(part, name)
        if isinstance(value, Quantity):
            yield (*loc, name), value
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from _quantities(inner, (*loc, name, key))


def _range_problem(loc: Loc, given: Quantity) -> Problem | None:
    low, value, high = given.low, given.value, given.high
    if low is None and high is None:
        return None
    if low is None or high is None:
        return Problem(loc, f"has {'high' if low is None else 'low'} alone; give low and high, or neither")
    try:
        type(given)(value=low), type(given)(value=high)
    except ValidationError as error:
        said = error.errors()[0]
        return Problem(loc, f"low {low:g}, high {high:g}: {said['msg'].replace('Input', 'each')}")
    if not low <= value <= high:
        return Problem(loc, f"low {low:g}, value {value:g}, high {high:g}; expected them in this order")
    return None


def _tier_problems(name: str, tier: TierAssumptions, models: Collection[str] | None) -> list[Problem]:
    loc = ("tiers", name)
    if models is not None and name not in models:
        return [Problem(loc, f"is no model of the graph; {suggest(name, models)}")]
    prices = [key for key in ("input_usd", "output_usd") if getattr(tier, key) is not None]
    if tier.price is not None and prices:
        return [Problem((*loc, prices[0]), f"beside price {tier.price!r}; give one of the two")]
    if tier.price is not None and lookup(tier.price) is None:
        text = f"no price is known of {tier.price!r}; give input_usd and output_usd (USD per million tokens)"
        return [Problem((*loc, "price"), text)]
    if len(prices) == 1:
        other = "output_usd" if prices == ["input_usd"] else "input_usd"
        return [Problem((*loc, prices[0]), f"without {other}; give both (0 if it costs nothing)")]
    if tier.local and (tier.price is not None or prices):
        key = "price" if tier.price is not None else prices[0]
        return [Problem((*loc, key), "of a local tier, which is paid by the machine's hour; remove one")]
    if models is None and not tier.local and tier.price is None and not prices:
        return [Problem(loc, "has no price; give price, or input_usd and output_usd, or local: true")]
    return []


_HEAD = """\
Assumptions of 'cascade plan --assumptions THIS_FILE'. Money is in US dollars.
What you remove is measured in stored runs where there are any, and else has the default written here.
Wherever a number stands, a range may stand, and gives the result an interval:
    expert_answers: {value: 0.7, low: 0.4, high: 0.9}
"""
_TIERS = """\
  haiku: {local: true, seconds: 0.01, answers: 0.5}
  sonnet: {local: true, seconds: 0.03, answers: 0.25}
  opus: {local: false, price: gpt-5.2, seconds: 1.5} # or input_usd: 1.75, output_usd: 14
"""


def assumptions_text() -> str:
    """Return a commented file that holds every key with its default."""
    lines = [f"# {line}".rstrip() for line in _HEAD.splitlines()]
    for name, field in Assumptions.model_fields.items():
        lines += ["", *(f"# {line}" for line in textwrap.wrap(field.description or "", 100))]
        lines += (
            [f"{name}:", _TIERS.rstrip()]
            if name == "tiers"
            else [f"{name}: {getattr(field.default, 'value', field.default):g}"]
        )
    for name, field in TierAssumptions.model_fields.items():
        at = lines.index("tiers:")
        lines.insert(at, f"#   {name}: {field.description}")
    return "\n".join(lines) + "\n"


def write_assumptions(path: str | Path) -> None:
    """Write the commented file; an existing one is left alone.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(assumptions_text())
    except FileExistsError:
        raise ConfigError(
            f"{path}: is there already; give another --write-assumptions, or remove it"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give one that can be written") from error
