"""Plots as inline SVG: no scripts, colours by the page's style sheet, so that light, dark and print fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 440, 300
SERIES = 6  # as many as the style sheet has colours; each has a marker of its own, too
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 22, 14, 46
_CHAR, _LINE = 6.8, 14  # room that a letter and a line of a label take
Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high`, with a name and a way to write its ticks."""

    name: str
    low: float
    high: float
    show: Callable[[float], str]

    def share(self, value: float) -> float:
        """Return where `value` lies between the ends, 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values on the axis."""
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * count for count in range(first, last + 1)]


def axis_around(
    name: str, values: Sequence[float], show: Callable[[float], str], *, room_at_zero: float
) -> Axis:
    """Return an axis that holds all `values`, none of them negative, with some room around them.

    `room_at_zero` is the room where all of them are 0.
    """
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or room_at_zero
    return Axis(name, max(0.0, low - room), high + room, show)


@dataclass
class Plot:
    """Draws into one picture; coordinates are values on the two axes."""

    x: Axis
    y: Axis
    title: str
    parts: list[str] = field(default_factory=list)
    taken: list[Box] = field(default_factory=list)

    def line(self, points: Sequence[Point], series: int, style: str = "") -> None:
        """Draw a line through `points`."""
        path = " ".join("{:.1f},{:.1f}".format(*self._at(point)) for point in points)
        self.parts.append(f'<polyline class="line s{series % SERIES} {style}" points="{path}"/>')

    def dot(self, point: Point, series: int, tip: str, size: float = 4.5) -> None:
        """Draw a marker whose shape and colour are the series'; `tip` shows on hovering."""
        x, y = self._at(point)
        self.taken.append((x - size, y - size, x + size, y + size))
        self.parts.append(
            f'<g class="dot s{series % SERIES}"><title>{escape(tip)}</title>{_marker(x, y, size, series)}</g>'
        )

    def whiskers(self, point: Point, across: Point | None, up: Point | None, series: int) -> None:
        """Draw the intervals of `point`, (low, high) along each axis."""
        ends = [[(across[0], point[1]), (across[1], point[1])]] if across else []
        ends += [[(point[0], up[0]), (point[0], up[1])]] if up else []
        for pair in ends:
            self.line(pair, series, "thin")

    def rule(self, value: float, text: str) -> None:
        """Draw a dashed level line with its name."""
        (x0, y), (x1, _) = self._at((self.x.low, value)), self._at((self.x.high, value))
        self.parts.append(f'<line class="rule" x1="{x0:.1f}" y1="{y:.1f}" x2="{x1:.1f}" y2="{y:.1f}"/>')
        self.parts.append(f'<text class="small" x="{x0 + 4:.1f}" y="{y - 4:.1f}">{escape(text)}</text>')
        self.taken.append((x0, y - 16, x0 + len(text) * _CHAR, y + 1))

    def label(self, point: Point, text: str) -> None:
        """Write `text` beside `point` where it covers nothing; nowhere if there is no such place."""
        x, y = self._at(point)
        wide = len(text) * _CHAR
        for left, middle in [(x + 9, y), (x - 9 - wide, y), (x - wide / 2, y - 15), (x - wide / 2, y + 15)]:
            box = (left, middle - _LINE / 2, left + wide, middle + _LINE / 2)
            if self._free(box):
                self.taken.append(box)
                self.parts.append(f'<text x="{left:.1f}" y="{middle + 4:.1f}">{escape(text)}</text>')
                return

    def svg(self) -> str:
        """Return the picture."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">'
            f"{self._frame()}{''.join(self.parts)}</svg>"
        )

    def _at(self, point: Point) -> Point:
        x = _LEFT + self.x.share(point[0]) * (WIDTH - _LEFT - _RIGHT)
        return x, HEIGHT - _BOTTOM - self.y.share(point[1]) * (HEIGHT - _TOP - _BOTTOM)

    def _free(self, box: Box) -> bool:
        inside = box[0] >= _LEFT and box[2] <= WIDTH - 2 and box[1] >= _TOP - 8 and box[3] <= HEIGHT - _BOTTOM
        return inside and not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in self.taken
        )

    def _frame(self) -> str:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        parts = []
        for tick in self.y.ticks():
            y = self._at((self.x.low, tick))[1]
            parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
            parts.append(_text(_LEFT - 6, y + 4, self.y.show(tick), "end"))
        for tick in self.x.ticks():
            x = self._at((tick, self.y.low))[0]
            parts.append(f'<line class="grid" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}"/>')
            parts.append(_text(x, bottom + 17, self.x.show(tick), "middle"))
        parts.append(_text((_LEFT + right) / 2, HEIGHT - 8, self.x.name, "middle"))
        parts.append(
            f'<text class="small" text-anchor="middle" '
            f'transform="translate(12 {(_TOP + bottom) / 2:.0f}) rotate(-90)">{escape(self.y.name)}</text>'
        )
        parts.append(f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
        return "".join(parts)


def key(series: int) -> str:
    """Return a small picture of a series' marker, for legends."""
    marker = f'<g class="dot s{series % SERIES}">{_marker(7, 7, 4.5, series)}</g>'
    return f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{marker}</svg>'


def forest(value: float, interval: Sequence[float], axis: Axis) -> str:
    """Return one row of a forest plot: a value with its (low, high)."""
    wide, middle = 120, 8
    ends = [4 + (wide - 8) * axis.share(number) for number in (interval[0], value, interval[1])]
    return (
        f'<svg class="forest" viewBox="0 0 {wide} {2 * middle}" aria-hidden="true">'
        f'<line class="grid" x1="4" y1="{middle}" x2="{wide - 4}" y2="{middle}"/>'
        f'<line class="line s0" x1="{ends[0]:.1f}" y1="{middle}" x2="{ends[2]:.1f}" y2="{middle}"/>'
        f'<g class="dot s0">{_marker(ends[1], middle, 4, 0)}</g></svg>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="small" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _marker(x: float, y: float, size: float, series: int) -> str:
    """Circle, square, diamond, triangle up, triangle down, cross."""
    shape = series % SERIES
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    corners: dict[int, list[Point]] = {
        1: [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        2: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        3: [(0, -1.2), (1.2, 1), (-1.2, 1)],
        4: [(0, 1.2), (1.2, -1), (-1.2, -1)],
        5: [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4), (0.4, 1.2),
            (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
    }  # fmt: skip
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners[shape])
    return f'<polygon points="{points}"/>'


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= step * 0.999)
