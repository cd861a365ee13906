"""The viewer's charts as inline SVG: no scripts, no style attributes; text stays readable at any width.

A chart is as wide as its place; its colours come from the style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cascade.explain.formatting import format_number, format_pair
from cascade.policy.calibrate import Curve
from cascade.svg import Plot, Point, element, fluid, text

_SAMPLES = 101  # points of a logistic curve


def markup(svg: str) -> Markup:
    """Return a picture as a template takes it."""
    return Markup(svg)  # noqa: S704 - `cascade.svg` escapes every text and attribute


def bar(share: float, style: str = "") -> Markup:
    """Return a horizontal bar that is filled to `share`; the number itself stands beside it."""
    width = f"{min(1.0, max(0.0, share)):.2%}"
    return _bar(element("rect", class_=f"fill {style}".strip(), width=width, height="100%", rx=3))


def span(start: float, length: float, style: str = "") -> Markup:
    """Return a bar from `start` on, `length` long, both shares of the whole."""
    x, width = f"{start:.2%}", f"{max(length, 0.004):.2%}"
    return _bar(element("rect", class_=f"fill {style}".strip(), x=x, width=width, height="100%", rx=2))


def _bar(fill: str) -> Markup:
    track = element("rect", class_="track", width="100%", height="100%", rx=3)
    return markup(element("svg", track, fill, class_="bar", aria_hidden="true"))


def gauge(measure: float, threshold: float | None, name: str = "Confidence") -> Markup:
    """Return what was measured and its threshold on a line from 0 to 1."""
    shown, needed = (format_number(measure), "") if threshold is None else format_pair(measure, threshold)
    title = f"{name} {shown}" + (f", accepted from {needed}" if needed else "")
    style = "passed" if threshold is None or measure >= threshold else "missed"
    at = f"{measure:.2%}"
    parts = [
        text(title, "title"),
        element("rect", class_="track", y=22, width="100%", height=10, rx=5),
        element("rect", class_=style, y=22, width=at, height=10, rx=5),
    ]
    if threshold is not None:
        x = f"{threshold:.2%}"
        parts.append(element("line", class_="threshold", x1=x, x2=x, y1=16, y2=38))
        parts.append(text(f"accept ≥ {needed}", class_="axis", x=x, y=11, text_anchor=_anchor(threshold)))
    parts.append(text(shown, class_="dot-text", x=at, text_anchor=_anchor(measure), y=50))
    return markup(element("svg", *parts, class_="chart", width="100%", height=56, role="img"))


def _anchor(share: float) -> str:
    return "end" if share > 0.5 else "start"


def calibration(curve: Curve, score: float, confidence: float, threshold: float | None) -> Markup:
    """Return the way from score to confidence on a calibration curve, and the threshold."""
    shown, needed = (
        (format_number(confidence), "") if threshold is None else format_pair(confidence, threshold)
    )
    title = f"The calibration maps the score {format_number(score)} to a confidence of {shown}"
    plot = Plot(title + (f"; accepted from {needed}" if needed else ""), frame=fluid())
    for y in (0.0, 0.5, 1.0):
        plot.rule(y, f"{y:g}")
    xs = (0.0, *curve.x, 1.0) if curve.x else [index / (_SAMPLES - 1) for index in range(_SAMPLES)]
    plot.line([(x, curve.apply(x)) for x in sorted(x for x in xs if 0 <= x <= 1)], "curve")
    if threshold is not None:
        plot.rule(threshold, style="threshold")
        plot.word((0.05, threshold), f"accept ≥ {needed}", "threshold-text")
    plot.cross((min(1.0, max(0.0, score)), confidence), f"{format_number(score)} → {shown}")
    plot.below(["score 0", "0.5", "1"])
    return markup(plot.svg())


def curves(values: Sequence[float | None], maximum: float) -> list[list[Point]]:
    """Return neighbouring values as curves over as many equal columns; None breaks a curve."""
    count = len(values)
    pieces: list[list[Point]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(((index + 0.5) / count, value / maximum if maximum else 0.0))
    return [points for points in pieces if points]
