"""What a plan says in plain words."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING

from cascade.lab.evaluation.formatting import duration, money, percent

if TYPE_CHECKING:
    from cascade.lab.planning.plan import Choice, Estimate, Plan

SURE = 0.95
_ANSWERED = 0.98  # share of the requests below which a cascade is no match for one that answers all


def verdict(plan: Plan) -> list[str]:
    """Return sentences: what to do and why, then what money does not tell."""
    found = [*_money(plan), *_cascade(plan)]
    if not plan.drawn:
        found.append(
            "No number has a range and none is measured, so there is no interval: give ranges to get one."
        )
    return [*found, _service(plan)]


def headline(plan: Plan) -> str:
    """Return the verdict in a few words."""
    if plan.pays >= SURE:
        return "Build"
    return "Buy" if plan.pays <= 1 - SURE else "Money alone does not decide"


def reason(plan: Plan) -> str:
    """Return the sentence that the verdict is short for."""
    looked = f"within the {plan.horizon_days:,} days that you look ahead"
    if plan.pays >= SURE:
        return f"An expert pays for itself {looked}."
    if plan.pays <= 1 - SURE:
        return f"An expert does not pay for itself {looked}, so as far as money goes, buying is better."
    leaning = "building" if plan.pays > 0.5 else "buying"
    return (
        f"An expert pays for itself {looked} in {percent(plan.pays)} of the draws, which leans to {leaning}."
    )


def amount(usd: float) -> str:
    """Return US dollars, a minus before the sign."""
    return f"−{money(-usd)}" if usd < 0 else money(usd)


def number(value: float | Decimal) -> str:
    """Return a number with four significant digits and no exponent."""
    digits = max(0, 3 - math.floor(math.log10(abs(float(value))))) if value else 0
    text = f"{float(value):,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def day_text(day: int | None) -> str:
    """Return a break-even day in words."""
    return "never" if day is None else f"day {day:,}"


def between(estimate: Estimate) -> str:
    """Return an amount with its interval."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return amount(estimate.value)
    return f"{amount(estimate.value)} ({amount(estimate.low)} to {amount(estimate.high)})"


def _money(plan: Plan) -> list[str]:
    buy, build = plan.buy.option, plan.build.option
    a_day = f"{amount(float(build.day_usd))} a day against {amount(float(buy.day_usd))} for {buy.name}"
    once = f"costs {amount(float(build.once_usd))} to build"
    if plan.break_even is None:
        why = f"An expert {once} and then {a_day}: it never pays for itself."
    else:
        ends = f" ({day_text(plan.break_even_low)} to {day_text(plan.break_even_high)})" if plan.drawn else ""
        why = (
            f"An expert {once} and then {a_day}: it has paid for itself on {day_text(plan.break_even)}{ends}."
        )
    small = plan.pays <= 1 - SURE and buy.year_usd < build.once_usd
    year = f"A whole year of {buy.name} costs {amount(float(buy.year_usd))}, less than building alone."
    return [f"{headline(plan)}. {reason(plan)}", f"{why} {year}" if small else why]


def _cascade(plan: Plan) -> list[str]:
    cascade = plan.choice("cascade")
    if cascade is None:
        return []
    days = plan.horizon_days
    own, buy, build = (float(each.option.after(days)) for each in (cascade, plan.buy, plan.build))
    cost = f"The cascade costs {between(cascade.year_usd)} a year"
    if cascade.answered is not None and cascade.answered < _ANSWERED:
        left = percent(1 - cascade.answered)
        return [f"{cost}, but left {left} of the requests without an answer: compare it with care."]
    if own < min(buy, build):
        return [f"{cost}, less than either: keep it, and train an expert only if it answers more for less."]
    cheaper = "an expert" if build < buy else plan.buy.option.name
    return [f"{cost}; over {days:,} days {cheaper} is cheaper."]


def _service(plan: Plan) -> str:
    parts = [
        _served(choice) for choice in (plan.buy, plan.choice("cascade"), plan.build) if choice is not None
    ]
    rest = "If texts must not leave, or waiting costs you users, that decides."
    return f"Beside money: {'; '.join(parts)}. {rest}"


def _served(choice: Choice) -> str:
    at = choice.latency
    return (
        f"{choice.option.name} sends {percent(choice.leaves)} of the requests off the machine and takes "
        f"{duration(at.median)} (one in twenty over {duration(at.p95)})"
    )
