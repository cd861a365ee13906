"""The charts of a plan: cost of each option, cost over time, and what the answer hinges on."""

from __future__ import annotations

from html import escape

from cascade.lab.evaluation.charts import key
from cascade.lab.planning.plan import Choice, Plan
from cascade.lab.planning.verdict import amount, between, number
from cascade.svg import Axis, Frame, Plot, text

_ROW = 44.0  # pixels of a bar with its name
_COLOURS = {"strongest": 3, "tier": 4, "cascade": 2, "expert": 0}  # series, by role of option


def first_year(plan: Plan) -> str:
    """Draw what each option costs in the first year, with its interval."""
    ends = [choice.first_year_usd.high or choice.first_year_usd.value for choice in plan.choices]
    plot = _rows(
        "What the first year costs", len(plan.choices), 0.0, max(ends) * 1.03 or 1.0, "US dollars, first year"
    )
    for index, choice in enumerate(plan.choices):
        y, cost = float(len(plan.choices) - 1 - index), choice.first_year_usd
        style = f"fill s{_COLOURS[choice.option.role]}"
        plot.block((0.0, y + 0.12), (cost.value, 0.36), style, f"{choice.option.name}: {between(cost)}")
        if cost.low is not None and cost.high is not None and cost.low < cost.high:
            plot.line([(cost.low, y + 0.3), (cost.high, y + 0.3)], "line whisker")
        _name(plot, y, f"{choice.option.name}: {amount(cost.value)}")
    return plot.svg()


def over_time(plan: Plan) -> str:
    """Draw what has been spent by each day, and where the expert has paid for itself."""
    shown = [choice for choice in (plan.buy, plan.choice("cascade"), plan.build) if choice is not None]
    days = plan.horizon_days
    if plan.break_even is not None and days < plan.break_even <= 5 * days:
        days = round(plan.break_even * 1.15)
    most = max(float(choice.option.after(days)) for choice in shown) or 1.0
    across, up = Axis("days", 0, days, number), Axis("US dollars", 0, most, amount)
    plot = Plot("What has been spent by each day", across, up, Frame(left=88.0))
    plot.axes()
    for choice in shown:
        option = choice.option
        ends = [(0.0, float(option.once_usd)), (float(days), float(option.after(days)))]
        plot.line(ends, f"line s{_COLOURS[option.role]}")
    if plan.break_even is not None and 0 < plan.break_even <= days:
        at = (float(plan.break_even), float(plan.build.option.after(plan.break_even)))
        plot.cross(at, f"day {plan.break_even:,}")
    return plot.svg() + _legend(shown)


def tornado(plan: Plan) -> str:
    """Draw what an expert saves in its first year as each assumption moves, the most important first."""
    base = plan.buy.first_year_usd.value - plan.build.first_year_usd.value
    ends = [end for swing in plan.swings for end in (swing.low_usd, swing.high_usd)]
    low, high = min([0.0, base, *ends]), max([0.0, base, *ends])
    room = (high - low) * 0.04 or 1.0
    name = "US dollars that an expert saves in its first year"
    plot = _rows("What the answer hinges on", len(plan.swings), low - room, high + room, name)
    for index, swing in enumerate(plan.swings):
        y = float(len(plan.swings) - 1 - index)
        left, right = sorted((swing.low_usd, swing.high_usd))
        hint = f"{swing.name}: {amount(swing.low_usd)} at {number(swing.low)}, {amount(swing.high_usd)} at "
        plot.block((left, y + 0.12), (right - left, 0.36), "fill s0", hint + number(swing.high))
        mark = "" if swing.known else " *"
        _name(plot, y, f"{swing.name}, {number(swing.low)} to {number(swing.high)}{mark}")
    for x, style in ((0.0, "axis"), (base, "rule")):
        plot.line([(x, 0.0), (x, float(len(plan.swings)))], style)
    return plot.svg()


def _rows(title: str, rows: int, low: float, high: float, name: str) -> Plot:
    """Return a plot with a row for each bar, whose name stands above it."""
    frame = Frame(height=_ROW * rows + 60, left=34.0)
    plot = Plot(title, Axis(name, low, high, amount), Axis("", 0.0, float(rows), lambda _: ""), frame)
    plot.axes()
    return plot


def _name(plot: Plot, y: float, label: str) -> None:
    row = plot.frame.inner_height / plot.y.high
    plot.parts.append(text(label, x=plot.frame.left + 2, y=plot.frame.base - y * row - 0.62 * row))


def _legend(choices: list[Choice]) -> str:
    entries = (
        f"<li>{key(_COLOURS[choice.option.role])}{escape(choice.option.name)}</li>" for choice in choices
    )
    return f'<ul class="legend">{"".join(entries)}</ul>'
