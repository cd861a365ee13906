"""Charts as inline SVG: no scripts, no style attributes; text stays readable at any width.

A chart is as wide as its place. Its texts and points stand at percentages; its curves are in an inner
picture that stretches, with strokes that do not. Colours come from the style sheet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from cascade.explain.formatting import format_number, format_pair
from cascade.policy.calibrate import Curve

_TOP, _BOTTOM = 16, 22  # pixels above and below the plot
_SAMPLES = 101  # points of a logistic curve
Point = tuple[float, float]  # x and y, each in [0, 1]; y grows upwards


class Plot:
    """Collects the parts of one chart.

    Args:
        title: what the chart shows, for those who cannot see it.
        height: of the plot itself, in pixels.
    """

    def __init__(self, title: str, height: int = 150) -> None:
        self.title = title
        self.height = height
        self._parts: list[str] = []

    def _y(self, y: float) -> float:
        return _TOP + (1 - y) * self.height

    def rule(self, y: float, text: str = "", style: str = "grid") -> None:
        """Add a horizontal line with a word above its left end."""
        at = self._y(y)
        self._parts.append(f'<line class="{style}" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>')
        if text:
            self._parts.append(f'<text class="{style}-text" x="0" y="{at - 4:.1f}">{escape(text)}</text>')

    def below(self, texts: Sequence[str]) -> None:
        """Add words below the plot, spread from its left to its right end."""
        for index, text in enumerate(texts):
            share = index / max(1, len(texts) - 1)
            anchor = ("start", "middle", "end")[0 if share == 0 else 2 if share == 1 else 1]
            place = f'x="{share:.2%}" y="{_TOP + self.height + 16}" text-anchor="{anchor}"'
            self._parts.append(f'<text class="axis" {place}>{escape(text)}</text>')

    def line(self, points: Sequence[Point], style: str) -> None:
        """Add a curve through `points`."""
        if len(points) > 1:
            self._stretched(f'<polyline class="{style}" points="{_points(points)}"/>')

    def area(self, points: Sequence[Point], style: str) -> None:
        """Add an area with these corners."""
        if len(points) > 2:
            self._stretched(f'<polygon class="{style}" points="{_points(points)}"/>')

    def block(self, x: float, y: float, size: Point, style: str, hint: str = "") -> None:
        """Add a rectangle whose lower left corner is at (x, y); `size` is its width and height."""
        width, height = size
        place = f'x="{x:.3%}" y="{self._y(y + height):.2f}" width="{width:.3%}"'
        title = f"<title>{escape(hint)}</title>" if hint else ""
        tag = f'<rect class="{style}" {place} height="{height * self.height:.2f}">{title}</rect>'
        self._parts.append(tag)

    def cross(self, at: Point, text: str) -> None:
        """Add a point with lines to both axes and a word beside it."""
        x, y = f"{at[0]:.2%}", f"{self._y(at[1]):.1f}"
        base = _TOP + self.height
        self._parts += [
            f'<line class="cross" x1="{x}" x2="{x}" y1="{y}" y2="{base}"/>',
            f'<line class="cross" x1="0" x2="{x}" y1="{y}" y2="{y}"/>',
            f'<circle class="dot" cx="{x}" cy="{y}" r="5"/>',
        ]
        self.word(at, text, "dot-text")

    def word(self, at: Point, text: str, style: str) -> None:
        """Add a word beside a point, on the side where there is more room."""
        left = at[0] > 0.5
        x = f'x="{at[0]:.2%}" dx="{-10 if left else 10}" text-anchor="{"end" if left else "start"}"'
        below = 16 if at[1] > 0.85 else -8  # above the lines that lead to the point
        y = f'y="{self._y(at[1]) + below:.1f}"'
        self._parts.append(f'<text class="{style}" {x} {y}>{escape(text)}</text>')

    def svg(self) -> Markup:
        """Return the chart."""
        size = f'width="100%" height="{self.height + _TOP + _BOTTOM}"'
        body = "".join(self._parts)
        return Markup(  # noqa: S704 - every text above is escaped
            f'<svg class="chart" {size} role="img"><title>{escape(self.title)}</title>{body}</svg>'
        )

    def _stretched(self, shape: str) -> None:
        place = f'x="0" y="{_TOP}" width="100%" height="{self.height}" viewBox="0 0 1000 1000"'
        self._parts.append(f'<svg {place} preserveAspectRatio="none" overflow="visible">{shape}</svg>')


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{x * 1000:.1f},{(1 - y) * 1000:.1f}" for x, y in points)


def bar(share: float, style: str = "") -> Markup:
    """Return a horizontal bar that is filled to `share`; the number itself stands beside it."""
    width = f"{min(1.0, max(0.0, share)):.2%}"
    return Markup(
        '<svg class="bar" aria-hidden="true"><rect class="track" width="100%" height="100%" rx="3"/>'
        '<rect class="{}" width="{}" height="100%" rx="3"/></svg>'
    ).format(f"fill {style}".strip(), width)


def span(start: float, length: float, style: str = "") -> Markup:
    """Return a bar from `start` on, `length` long, both shares of the whole."""
    return Markup(
        '<svg class="bar" aria-hidden="true"><rect class="track" width="100%" height="100%" rx="3"/>'
        '<rect class="{}" x="{}" width="{}" height="100%" rx="2"/></svg>'
    ).format(f"fill {style}".strip(), f"{start:.2%}", f"{max(length, 0.004):.2%}")


def gauge(measure: float, threshold: float | None, name: str = "Confidence") -> Markup:
    """Return what was measured and its threshold on a line from 0 to 1."""
    shown, needed = (format_number(measure), "") if threshold is None else format_pair(measure, threshold)
    title = f"{name} {shown}" + (f", accepted from {needed}" if needed else "")
    style = "passed" if threshold is None or measure >= threshold else "missed"
    parts = [
        f"<title>{title}</title>",
        '<rect class="track" y="22" width="100%" height="10" rx="5"/>',
        f'<rect class="{style}" y="22" width="{measure:.2%}" height="10" rx="5"/>',
    ]
    if threshold is not None:
        at, anchor = f"{threshold:.2%}", "end" if threshold > 0.5 else "start"
        parts.append(f'<line class="threshold" x1="{at}" x2="{at}" y1="16" y2="38"/>')
        parts.append(f'<text class="axis" x="{at}" y="11" text-anchor="{anchor}">accept ≥ {needed}</text>')
    place = f'x="{measure:.2%}" text-anchor="{"end" if measure > 0.5 else "start"}"'
    parts.append(f'<text class="dot-text" {place} y="50">{shown}</text>')
    body = "".join(parts)
    return Markup(f'<svg class="chart" width="100%" height="56" role="img">{body}</svg>')  # noqa: S704


def calibration(curve: Curve, score: float, confidence: float, threshold: float | None) -> Markup:
    """Return the way from score to confidence on a calibration curve, and the threshold."""
    shown, needed = (
        (format_number(confidence), "") if threshold is None else format_pair(confidence, threshold)
    )
    title = f"The calibration maps the score {format_number(score)} to a confidence of {shown}"
    plot = Plot(title + (f"; accepted from {needed}" if needed else ""))
    for y in (0.0, 0.5, 1.0):
        plot.rule(y, f"{y:g}")
    xs = (0.0, *curve.x, 1.0) if curve.x else [index / (_SAMPLES - 1) for index in range(_SAMPLES)]
    plot.line([(x, curve.apply(x)) for x in sorted(x for x in xs if 0 <= x <= 1)], "curve")
    if threshold is not None:
        plot.rule(threshold, style="threshold")
        plot.word((0.05, threshold), f"accept ≥ {needed}", "threshold-text")
    plot.cross((min(1.0, max(0.0, score)), confidence), f"{format_number(score)} → {shown}")
    plot.below(["score 0", "0.5", "1"])
    return plot.svg()


def steps(values: Sequence[float | None], most: float) -> list[list[Point]]:
    """Return the runs of neighbouring values as curves over as many equal columns; None breaks a curve."""
    count = len(values)
    found: list[list[Point]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append(((index + 0.5) / count, value / most if most else 0.0))
    return [points for points in found if points]
