"""A plot: values on two axes become SVG, in a picture that scales as a whole or is as wide as its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cascade.svg._elements import coordinates, element, text
from cascade.svg._palette import SERIES

_CHAR, _LINE = 6.8, 14  # pixels that a letter and a line of a label take
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high`, with a name and a way to write its ticks."""

    name: str = ""
    low: float = 0.0
    high: float = 1.0
    show: Callable[[float], str] = "{:g}".format

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


@dataclass(frozen=True)
class Frame:
    """The size of a picture and its margins in pixels.

    A `fluid` picture is as wide as its place: x positions are percentages, curves stretch with strokes that
    do not, and texts keep their size. It has no margins at its sides, and `width` is only a guess.
    """

    width: float = 440.0
    height: float = 300.0
    left: float = 64.0
    right: float = 22.0
    top: float = 14.0
    bottom: float = 46.0
    fluid: bool = False

    @property
    def inner_height(self) -> float:
        """The height between the margins."""
        return self.height - self.top - self.bottom

    @property
    def base(self) -> float:
        """The y of the bottom of the plot."""
        return self.height - self.bottom

    def x(self, share: float) -> float:
        """Return the x of a share of the plot's width, in pixels."""
        return self.left + share * (self.width - self.left - self.right)

    def y(self, share: float) -> float:
        """Return the y of a share of the plot's height, in pixels from the top."""
        return self.base - share * self.inner_height

    def across(self, share: float) -> str:
        """Return the x of a share as an attribute holds it."""
        return f"{share:.2%}" if self.fluid else f"{self.x(share):.1f}"


def fluid(height: float = 150.0) -> Frame:
    """Return the frame of a picture as wide as its place, whose plot is `height` pixels high."""
    return Frame(width=600.0, height=height + 38.0, left=0.0, right=0.0, top=16.0, bottom=22.0, fluid=True)


@dataclass
class Plot:
    """Collects the parts of one picture; coordinates are values on the two axes, y grows upwards.

    Args:
        title: what the picture shows, for those who cannot see it.
        x, y: the axes.
        frame: the size of the picture.
        parts: elements, the lowest first.
    """

    title: str
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    frame: Frame = field(default_factory=Frame)
    parts: list[str] = field(default_factory=list)
    taken: list[Box] = field(default_factory=list)

    def line(self, points: Sequence[Point], style: str) -> None:
        """Add a curve through at least two `points`."""
        if len(points) > 1:
            self._shape("polyline", points, style)

    def area(self, points: Sequence[Point], style: str) -> None:
        """Add an area with these corners, at least three."""
        if len(points) > 2:
            self._shape("polygon", points, style)

    def _shape(self, name: str, points: Sequence[Point], style: str) -> None:
        shares = [(self.x.share(x), self.y.share(y)) for x, y in points]
        frame = self.frame
        if not frame.fluid:
            path = coordinates((frame.x(x), frame.y(y)) for x, y in shares)
            self.parts.append(element(name, class_=style, points=path))
            return
        stretched = element(
            name, class_=style, points=coordinates((1000 * x, 1000 * (1 - y)) for x, y in shares)
        )
        self.parts.append(
            element(
                "svg", stretched, x="0", y=frame.top, width="100%", height=frame.inner_height,
                viewBox="0 0 1000 1000", preserveAspectRatio="none", overflow="visible",
            )
        )  # fmt: skip

    def block(self, corner: Point, size: Point, style: str, hint: str = "") -> None:
        """Add a rectangle by its lower left corner, width and height; `hint` shows on hovering."""
        (x, y), (width, height) = corner, size
        low, high = self._y(y), self._y(y + height)
        across = self.x.share(x + width) - self.x.share(x)
        extent = f"{across:.3%}" if self.frame.fluid else self.frame.x(across) - self.frame.x(0.0)
        title = text(hint, "title") if hint else ""
        self.parts.append(
            element("rect", title, class_=style, x=self._x(x), y=high, width=extent, height=low - high)
        )

    def rule(self, y: float, label: str = "", style: str = "grid") -> None:
        """Add a horizontal line with a word above its left end."""
        at = self._y(y)
        left, right = self.frame.across(0.0), self.frame.across(1.0)
        self.parts.append(element("line", class_=style, x1=left, x2=right, y1=at, y2=at))
        if label:
            self.parts.append(text(label, class_=f"{style}-text", x=left, dx=4, y=at - 4))
            x = self.frame.x(0.0)
            self.taken.append((x, at - 16, x + len(label) * _CHAR, at + 1))

    def below(self, labels: Sequence[str]) -> None:
        """Add words below the plot, spread from its left to its right end."""
        for index, label in enumerate(labels):
            share = index / max(1, len(labels) - 1)
            anchor = "start" if share == 0 else "end" if share == 1 else "middle"
            place: dict[str, str | float] = {
                "x": self.frame.across(share),
                "y": self.frame.base + 16,
                "text_anchor": anchor,
            }
            self.parts.append(text(label, class_="axis", **place))

    def cross(self, point: Point, label: str) -> None:
        """Add a dot with lines to both axes and a word beside it."""
        x, y = self._x(point[0]), self._y(point[1])
        self.parts += [
            element("line", class_="cross", x1=x, x2=x, y1=y, y2=self.frame.base),
            element("line", class_="cross", x1=self.frame.across(0.0), x2=x, y1=y, y2=y),
            element("circle", class_="dot", cx=x, cy=y, r=5),
        ]
        self.word(point, label, "dot-text")

    def word(self, point: Point, label: str, style: str) -> None:
        """Add a word beside a point, on the side where there is more room."""
        left = self.x.share(point[0]) > 0.5
        drop = 16 if self.y.share(point[1]) > 0.85 else -8  # above the lines that lead to the point
        place: dict[str, str | float] = {"x": self._x(point[0]), "y": self._y(point[1]) + drop}
        side: dict[str, str | float] = {"dx": -10 if left else 10, "text_anchor": "end" if left else "start"}
        self.parts.append(text(label, class_=style, **place, **side))

    def dot(self, point: Point, series: int, hint: str, size: float = 4.5) -> None:
        """Add a marker whose shape and colour are the series'; `hint` shows on hovering."""
        x, y = self._at(point)
        self.taken.append((x - size, y - size, x + size, y + size))
        shape = text(hint, "title") + marker(x, y, size, series)
        self.parts.append(element("g", shape, class_=f"dot s{series % SERIES}"))

    def whiskers(self, point: Point, across: Point | None, up: Point | None, series: int) -> None:
        """Add the intervals of `point`, (low, high) along each axis."""
        ends = [[(across[0], point[1]), (across[1], point[1])]] if across else []
        ends += [[(point[0], up[0]), (point[0], up[1])]] if up else []
        for pair in ends:
            self.line(pair, f"line s{series % SERIES} thin")

    def label(self, point: Point, content: str) -> None:
        """Write `content` beside `point` where it covers nothing; leave it out if there is no such place."""
        x, y = self._at(point)
        wide = len(content) * _CHAR
        for left, middle in [(x + 9, y), (x - 9 - wide, y), (x - wide / 2, y - 15), (x - wide / 2, y + 15)]:
            box = (left, middle - _LINE / 2, left + wide, middle + _LINE / 2)
            if self._free(box):
                self.taken.append(box)
                self.parts.append(text(content, x=left, y=middle + 4))
                return

    def axes(self) -> None:
        """Add ticks, their values and the names of both axes."""
        frame, base = self.frame, self.frame.base
        left, right = frame.x(0.0), frame.x(1.0)
        for tick in self.y.ticks():
            y = self._y(tick)
            self.parts.append(element("line", class_="grid", x1=left, y1=y, x2=right, y2=y))
            self.parts.append(_small(left - 6, y + 4, self.y.show(tick), "end"))
        for tick in self.x.ticks():
            x = frame.x(self.x.share(tick))
            self.parts.append(element("line", class_="grid", x1=x, y1=base, x2=x, y2=base + 4))
            self.parts.append(_small(x, base + 17, self.x.show(tick), "middle"))
        self.parts.append(_small((left + right) / 2, frame.height - 8, self.x.name, "middle"))
        turned = f"translate(12 {(frame.top + base) / 2:.0f}) rotate(-90)"
        self.parts.append(text(self.y.name, class_="small", text_anchor="middle", transform=turned))
        self.parts.append(element("line", class_="axis", x1=left, y1=base, x2=right, y2=base))

    def svg(self) -> str:
        """Return the picture."""
        frame = self.frame
        if frame.fluid:
            size: dict[str, str | float] = {"width": "100%", "height": f"{frame.height:.0f}"}
        else:
            size = {"viewBox": f"0 0 {frame.width:.0f} {frame.height:.0f}"}
        title = text(self.title, "title")
        return element("svg", title, *self.parts, class_="chart", **size, role="img")

    def _at(self, point: Point) -> Point:
        return self.frame.x(self.x.share(point[0])), self._y(point[1])

    def _x(self, value: float) -> str:
        return self.frame.across(self.x.share(value))

    def _y(self, value: float) -> float:
        return self.frame.y(self.y.share(value))

    def _free(self, box: Box) -> bool:
        frame = self.frame
        inside = box[0] >= frame.left and box[2] <= frame.width - 2
        inside = inside and box[1] >= frame.top - 8 and box[3] <= frame.base
        return inside and not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in self.taken
        )


def marker(x: float, y: float, size: float, series: int) -> str:
    """Return the mark of a series: circle, square, diamond, triangle up, triangle down, cross."""
    shape = series % SERIES
    if shape == 0:
        return element("circle", cx=x, cy=y, r=float(size))
    corners: dict[int, list[Point]] = {
        1: [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        2: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        3: [(0, -1.2), (1.2, 1), (-1.2, 1)],
        4: [(0, 1.2), (1.2, -1), (-1.2, -1)],
        5: [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4), (0.4, 1.2),
            (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
    }  # fmt: skip
    return element("polygon", points=coordinates((x + size * dx, y + size * dy) for dx, dy in corners[shape]))


def _small(x: float, y: float, content: str, anchor: str) -> str:
    return text(content, class_="small", x=x, y=y, text_anchor=anchor)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= step * 0.999)
