"""Build or buy: what ways of answering cost a day, and when a trained expert has paid for itself.

All sums are in decimals, so that a price list and a calculator give the same cents.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NamedTuple

DAYS = 365  # of a year
_HOUR = 3600
_MILLION = 1_000_000

Role = Literal["strongest", "tier", "cascade", "expert"]


class Tier(NamedTuple):
    """One model as the sums see it.

    Attributes:
        name: of the model.
        local: it runs on a machine that is paid by the hour.
        usd_alone: what it charges for a request if it answers all of them; 0 for a local model.
        usd_call: what it charges for a call in the cascade, which asks it for some requests.
        calls: how often the cascade asks it, in calls a request.
        seconds: how long a call takes.
    """

    name: str
    local: bool
    usd_alone: Decimal
    usd_call: Decimal
    calls: Decimal
    seconds: Decimal


class Machine(NamedTuple):
    """What local models run on.

    Attributes:
        usd_an_hour: its price.
        utilisation: share of the paid time in which it can be kept busy.
        at_least: machines that are paid around the clock even if they have little to do.
    """

    usd_an_hour: Decimal
    utilisation: Decimal
    at_least: Decimal


class Expert(NamedTuple):
    """A small local model to be trained, which passes on what it is not sure of.

    Attributes:
        answers: share of the requests that it answers itself.
        seconds: how long it takes for one.
        rows: labelled rows that it needs, at `usd_a_row`.
        days: of an engineer, at `usd_a_day`, until it answers.
        drifts_a_year: how often a year the requests or the labels change so much that it is trained anew.
        relabelled: share of the rows that are labelled again each time.
        drift_days: of an engineer, each time.
    """

    answers: Decimal
    seconds: Decimal
    rows: Decimal
    usd_a_row: Decimal
    days: Decimal
    usd_a_day: Decimal
    drifts_a_year: Decimal
    relabelled: Decimal
    drift_days: Decimal

    @property
    def once_usd(self) -> Decimal:
        """What it costs until it answers its first request."""
        return self.rows * self.usd_a_row + self.days * self.usd_a_day

    @property
    def upkeep_usd(self) -> Decimal:
        """What its drift costs a year: rows labelled again, and days of work."""
        each = self.relabelled * self.rows * self.usd_a_row + self.drift_days * self.usd_a_day
        return self.drifts_a_year * each


class Workload(NamedTuple):
    """What is asked, and who could answer; the last of `tiers`, the cheapest first, is the strongest.

    `other_usd` and `other_seconds` are what calls of no tier cost today (shadows, gates), a request.
    """

    requests_a_day: Decimal
    tiers: tuple[Tier, ...]
    machine: Machine
    expert: Expert
    other_usd: Decimal = Decimal(0)
    other_seconds: Decimal = Decimal(0)


class Option(NamedTuple):
    """A way to answer all requests: what it costs once, and then each day, in USD."""

    name: str
    role: Role
    once_usd: Decimal
    day_usd: Decimal

    @property
    def year_usd(self) -> Decimal:
        """What it costs a year once it runs."""
        return DAYS * self.day_usd

    @property
    def first_year_usd(self) -> Decimal:
        """What it costs in the first year, with what it costs once."""
        return self.after(DAYS)

    def after(self, days: Decimal | int) -> Decimal:
        """Return what it has cost after `days`."""
        return self.once_usd + days * self.day_usd


def tokens_usd(tokens_in: Decimal, tokens_out: Decimal, price_in: Decimal, price_out: Decimal) -> Decimal:
    """Return what a call costs, at prices in USD per million tokens."""
    return (tokens_in * price_in + tokens_out * price_out) / _MILLION


def options(work: Workload) -> list[Option]:
    """Return each tier alone, the cascade (of two tiers or more), and the expert with the strongest tier."""
    strongest, requests = work.tiers[-1], work.requests_a_day
    found = [Option(f"{tier.name} alone", "tier", Decimal(0), _alone(work, tier)) for tier in work.tiers]
    found[-1] = found[-1]._replace(role="strongest")
    if len(work.tiers) > 1:
        usd = work.other_usd + sum((tier.calls * tier.usd_call for tier in work.tiers), Decimal(0))
        busy = sum((tier.calls * tier.seconds for tier in work.tiers if tier.local), work.other_seconds)
        found.append(Option("the cascade", "cascade", Decimal(0), requests * usd + _machines(work, busy)))
    expert = work.expert
    rest = 1 - expert.answers
    busy = expert.seconds + (rest * strongest.seconds if strongest.local else 0)
    day = requests * rest * strongest.usd_alone + _machines(work, busy) + expert.upkeep_usd / DAYS
    return [*found, Option(f"an expert, then {strongest.name}", "expert", expert.once_usd, day)]


def break_even(build: Option, buy: Option) -> int | None:
    """Return the first day after which `build` has cost no more than `buy`; None if that day never comes."""
    once = build.once_usd - buy.once_usd
    if once <= 0 and build.day_usd <= buy.day_usd:
        return 0
    saved = Fraction(buy.day_usd) - Fraction(build.day_usd)
    return math.ceil(Fraction(once) / saved) if saved > 0 else None


def _alone(work: Workload, tier: Tier) -> Decimal:
    busy = tier.seconds if tier.local else Decimal(0)
    return work.requests_a_day * tier.usd_alone + _machines(work, busy)


def _machines(work: Workload, busy: Decimal) -> Decimal:
    """Return what machines cost a day that are busy for `busy` seconds a request; nothing if none is."""
    if busy <= 0:
        return Decimal(0)
    machine = work.machine
    hours = work.requests_a_day * busy / _HOUR / machine.utilisation
    return machine.usd_an_hour * max(24 * machine.at_least, hours)
