"""The month as a picture: what a day costs, who answered, how often students are wrong, what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cascade.svg import Axis, Frame, Plot, element, style_sheet, text

WIDTH, HEIGHT, LEFT, RIGHT = 820.0, 250.0, 64.0, 22.0
_RULES = """
svg { background: ${panel}; font-family: system-ui, sans-serif; font-size: 12px; fill: ${ink}; }
.small { font-size: 11px; fill: ${soft}; }
.head { font-size: 13px; font-weight: 600; fill: ${ink}; }
.grid { stroke: ${line}; }
.axis { stroke: ${edge}; }
.bar { fill: ${series_0}; }
.line { fill: none; stroke-width: 2; }
.s1 { stroke: ${series_2}; }
.s2 { stroke: ${series_1}; }
.promise { stroke: ${bad}; stroke-dasharray: 6 4; }
.promise-text { fill: ${bad}; font-size: 11px; }
.mark { stroke: ${edge}; stroke-dasharray: 2 3; }
.event { font-size: 11px; fill: ${ink}; }
.good { fill: ${good}; }
.bad { fill: ${bad}; }
.warn { fill: ${warn}; }
"""


class Drawn(Protocol):
    """A day, as far as it is drawn."""

    number: int
    requests: int
    cost_usd: float
    by_student: int
    wrong: int
    events: list[str]


def draw(days: Sequence[Drawn], *, change: int, promise: float) -> str:
    """Return the picture as SVG.

    Args:
        days: the days.
        change: the day on which the requests changed.
        promise: the error that is asked for among what the student answers.
    """
    events = [(day.number, event) for day in days for event in day.events if not _learned(event)]
    panels = [_cost(days), _share(days), _wrong(days, promise)]
    height = 3 * HEIGHT + 34 + 17 * len(events)
    parts = [element("style", style_sheet(_RULES))]
    panels[0].parts += [_dot(panels[0], number, event) for number, event in events]
    for index, panel in enumerate(panels):
        if change <= len(days):
            panel.parts.append(_mark(panel, change, "the requests change" if index == 0 else ""))
        parts.append(element("g", *panel.parts, transform=f"translate(0 {index * HEIGHT:.0f})"))
    parts.append(text("What happened", class_="head", x=LEFT, y=3 * HEIGHT + 22))
    for row, (number, event) in enumerate(events):
        style = _style(event)
        y = 3 * HEIGHT + 42 + 17 * row
        parts.append(element("circle", class_=style, cx=LEFT + 5, cy=y - 4, r=4))
        parts.append(text(f"day {number}: {event}", class_="event", x=LEFT + 16, y=y))
    title = text("A simulated month of a cascade that learns from its own traces", "title")
    size = {"viewBox": f"0 0 {WIDTH:.0f} {height:.0f}", "xmlns": "http://www.w3.org/2000/svg", "role": "img"}
    return element("svg", title, *parts, **size) + "\n"


def _learned(event: str) -> bool:
    return "learned" in event


def _style(event: str) -> str:
    return "warn" if "drift" in event else "bad" if "refused" in event else "good"


def _dot(plot: Plot, day: int, event: str) -> str:
    """Return a dot above the bar of the day on which something happened."""
    x, y = plot.frame.x(plot.x.share(day)), plot.frame.top + 4
    return element("circle", text(event, "title"), class_=_style(event), cx=x, cy=y, r=4)


def _panel(days: Sequence[Drawn], heading: str, axis: Axis) -> Plot:
    across = Axis("day", 0.4, len(days) + 0.6, "{:.0f}".format)
    frame = Frame(WIDTH, HEIGHT, LEFT, RIGHT, 34.0, 46.0)
    plot = Plot(heading, across, axis, frame)
    plot.parts.append(text(heading, class_="head", x=LEFT, y=18))
    plot.axes()
    return plot


def _cost(days: Sequence[Drawn]) -> Plot:
    costs = [1000 * day.cost_usd / day.requests for day in days]
    top = max(costs) * 1.2
    plot = _panel(days, "Cost: $ per 1,000 requests", Axis("", 0.0, top, "{:.2f}".format))
    for day, cost in zip(days, costs, strict=True):
        plot.block((day.number - 0.36, 0.0), (0.72, cost), "bar", f"day {day.number}: ${cost:.3f}")
    return plot


def _share(days: Sequence[Drawn]) -> Plot:
    plot = _panel(
        days, "Share of requests that the local student answered", Axis("", 0.0, 1.0, "{:.0%}".format)
    )
    plot.line([(float(day.number), day.by_student / day.requests) for day in days], "line s1")
    return plot


def _wrong(days: Sequence[Drawn], promise: float) -> Plot:
    """Draw the share of wrong answers among the student's, over all days so far and over the last seven."""
    so_far = [(float(day.number), _rate(days[: index + 1])) for index, day in enumerate(days)]
    week = [(float(day.number), _rate(days[max(0, index - 6) : index + 1])) for index, day in enumerate(days)]
    top = max(2.2 * promise, 1.15 * max(rate for _, rate in [*so_far, *week]))
    heading = "Wrong among what the student answered: seven days (orange), all days so far (green)"
    plot = _panel(days, heading, Axis("", 0.0, top, "{:.1%}".format))
    plot.rule(promise, f"asked for: at most {promise:.0%}", "promise")
    plot.line(week, "line s2")
    plot.line(so_far, "line s1")
    return plot


def _rate(days: Sequence[Drawn]) -> float:
    answers = sum(day.by_student for day in days)
    return sum(day.wrong for day in days) / answers if answers else 0.0


def _mark(plot: Plot, day: int, label: str) -> str:
    """Return a vertical line before `day`, with a word above it."""
    x = plot.frame.x(plot.x.share(day - 0.5))
    line = element("line", class_="mark", x1=x, x2=x, y1=plot.frame.top, y2=plot.frame.base)
    return line + (text(label, class_="small", x=x + 4, y=plot.frame.top + 22) if label else "")
