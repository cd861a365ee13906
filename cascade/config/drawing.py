"""A graph as one self-contained SVG picture: layers from top to bottom, light and dark, no scripts.

The layout is Sugiyama's: layers by longest path, dummy nodes where an arrow crosses a layer, order by the
mean position of the neighbours (Sugiyama, Tagawa and Toda 1981).
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cascade.config.draw import GIVE_UP, START, Arrow, Box, outline
from cascade.spec.schema import Graph
from cascade.svg import element, style_sheet, text

_LINE, _PAD, _GAP, _LAYER_GAP, _MARGIN = 19, 12, 36, 58, 20
_CHAR = 7.4  # pixels of an average letter at 13 px, a little more than most fonts need
_TAIL = 34  # the arrow to a box's answer
_SWEEPS = 8

_FONT = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif} "
    ".name{font-weight:600}"
)
_COLOURS = (
    "text{fill:${ink}} .page,.plate{fill:${panel}} .quiet{fill:${soft}} .box{fill:${sunk};stroke:${edge}} "
    ".branches{fill:${warn_bg};stroke:${warn}} .start,.end{fill:${line};stroke:${edge}} "
    ".answer{fill:${good_bg};stroke:${good}} .way{fill:none;stroke:${edge};stroke-width:1.5} "
    ".yes{stroke:${good}} .head{fill:${edge}} .yeshead{fill:${good}}"
)


@dataclass
class _Node:
    """A box or, without one, the place where an arrow crosses a layer; x is the centre, y the top."""

    key: str
    box: Box | None = None
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    height: float = 0.0
    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)

    @property
    def width(self) -> float:
        if self.box is None:
            return 2.0
        return max(_text_width(line) for line in self.box.lines) + 2 * _PAD

    @property
    def right(self) -> float:
        """How far the drawing reaches right of the centre, the answer included."""
        if self.box is None or self.box.accepts is None:
            return self.width / 2
        return self.width / 2 + _TAIL + _text_width(_answer(self.box)) + 2 * _PAD


@dataclass(frozen=True)
class Lit:
    """The part of a drawing that is lit: boxes by key, arrows by source and target, the box that answered."""

    boxes: frozenset[str]
    arrows: frozenset[tuple[str, str]]
    answered: str | None = None


@dataclass(frozen=True)
class Drawing:
    """The inside of an SVG picture, and its place: `left` is the x of its left edge, its top is 0."""

    body: str
    left: float
    width: float
    height: float

    def tag(self, attributes: str) -> str:
        """Return the opening tag of the picture."""
        box = f"{self.left:.0f} 0 {self.width:.0f} {self.height:.0f}"
        size = f'width="{self.width:.0f}" height="{self.height:.0f}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" {size} {attributes}>'


def svg(graph: Graph) -> str:
    """Return `graph` as an SVG document."""
    picture = drawing(*outline(graph))
    page = element("rect", class_="page", x=f"{picture.left:.0f}", y="0", width="100%", height="100%")
    style = element("style", f"\n{_FONT}\n{style_sheet(_COLOURS)}\n")
    parts = (text(graph.name, "title"), style, page, picture.body)
    return picture.tag('role="img"') + "\n" + "\n".join(parts) + "\n</svg>\n"


def drawing(boxes: Sequence[Box], arrows: Sequence[Arrow], lit: Lit | None = None) -> Drawing:
    """Lay out and draw boxes and arrows; with `lit`, each is in a group of class `lit` or `dim`."""
    nodes, routes = _layered(boxes, arrows)
    _place(nodes, _ordered(nodes))
    left = min(node.x - node.width / 2 for node in nodes.values()) - _MARGIN
    width = max(node.x + node.right for node in nodes.values()) + _MARGIN - left
    height = max(node.y + node.height for node in nodes.values()) + _MARGIN
    parts: list[tuple[bool, str]] = []
    ways = [[nodes[key] for key in route] for route in routes]
    for draw in (_draw_arrow, _draw_label):
        for arrow, way in zip(arrows, ways, strict=True):
            parts.append((lit is None or (arrow.source, arrow.target) in lit.arrows, draw(arrow, way)))
    for node in nodes.values():
        parts.append((lit is None or node.key in lit.boxes, _draw_box(node)))
        parts.append((lit is None or node.key == lit.answered, _draw_answer(node)))
    if lit is not None:
        parts = [
            (on, element("g", part, class_="lit" if on else "dim") if part else "") for on, part in parts
        ]
        parts.sort(key=lambda item: item[0])  # what is lit lies above the rest
    return Drawing("\n".join([_HEADS, *(part for _, part in parts if part)]), left, width, height)


_HEADS = element("defs", *(
    element(
        "marker", element("path", class_=name, d="M0 1L10 5L0 9z"), id=name, viewBox="0 0 10 10", refX="9",
        refY="5", markerWidth="8", markerHeight="8", orient="auto-start-reverse",
    )
    for name in ("head", "yeshead")
))  # fmt: skip


def _text_width(line: str) -> float:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in line)
    return (len(line) + wide) * _CHAR


def _answer(box: Box) -> str:
    return f"answer {box.accepts}"


def _layered(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> tuple[dict[str, _Node], list[list[str]]]:
    """Give every box a layer and cut long arrows by dummies; return the nodes and each arrow's way."""
    nodes = {box.key: _Node(box.key, box) for box in boxes}
    for _ in boxes:  # the longest path in a graph without cycles is shorter than its number of nodes
        for arrow in arrows:
            low = nodes[arrow.source].layer + 1
            nodes[arrow.target].layer = max(nodes[arrow.target].layer, low)
    if GIVE_UP in nodes:
        nodes[GIVE_UP].layer = max(node.layer for node in nodes.values())
    routes = []
    for index, arrow in enumerate(arrows):
        first, last = nodes[arrow.source].layer + 1, nodes[arrow.target].layer
        way = [arrow.source, *(f"{index}:{layer}" for layer in range(first, last)), arrow.target]
        for layer, key in enumerate(way[1:-1], first):
            nodes[key] = _Node(key, layer=layer)
        for upper, lower in pairwise(way):
            nodes[upper].below.append(lower)
            nodes[lower].above.append(upper)
        routes.append(way)
    return nodes, routes


def _ordered(nodes: Mapping[str, _Node]) -> list[list[_Node]]:
    """Order each layer so that few arrows cross."""
    by_layer: dict[int, list[_Node]] = defaultdict(list)
    for node in nodes.values():
        by_layer[node.layer].append(node)
    layers = [by_layer[index] for index in sorted(by_layer)]
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else layers[::-1]:
            position = {node.key: index for group in layers for index, node in enumerate(group)}
            means = {}
            for index, node in enumerate(layer):
                near = node.above if down else node.below
                means[node.key] = sum(position[key] for key in near) / len(near) if near else index
            layer.sort(key=lambda node: means[node.key])
    return layers


def _place(nodes: Mapping[str, _Node], layers: Sequence[Sequence[_Node]]) -> None:
    """Position every node: near the mean of its neighbours, without overlap."""
    top = float(_MARGIN)
    for layer in layers:
        for node in layer:
            node.y = top
            node.height = 0.0 if node.box is None else len(node.box.lines) * _LINE + 2 * _PAD - 5
        tallest = max(node.height for node in layer)
        for node in layer:
            node.height = node.height or tallest  # an arrow passes a layer straight
        top += tallest + _LAYER_GAP
        _spread(layer, [0.0] * len(layer))
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 else layers[::-1]:
            wishes = []
            for node in layer:
                near = [nodes[key].x for key in (node.above if sweep % 2 else node.below)]
                wishes.append(sum(near) / len(near) if near else node.x)
            _spread(layer, wishes)
    for node in nodes.values():
        node.above.sort(key=lambda key: nodes[key].x)
        node.below.sort(key=lambda key: nodes[key].x)


def _spread(layer: Sequence[_Node], wishes: Sequence[float]) -> None:
    """Put the nodes of a layer near their wishes: the mean of pushing to the right and to the left."""
    pushed = list(wishes)
    for index, (left, right) in enumerate(pairwise(layer)):
        pushed[index + 1] = max(wishes[index + 1], pushed[index] + left.right + _GAP + right.width / 2)
    pulled = list(wishes)
    for index in range(len(layer) - 2, -1, -1):
        space = layer[index].right + _GAP + layer[index + 1].width / 2
        pulled[index] = min(wishes[index], pulled[index + 1] - space)
    for node, far, near in zip(layer, pushed, pulled, strict=True):
        node.x = (far + near) / 2


def _ends(way: Sequence[_Node]) -> list[tuple[float, float]]:
    """The points of an arrow: out of the bottom of its first node, into the top of its last one."""
    first, last = way[0], way[-1]
    out, into = _port(first, first.below, way[1].key), _port(last, last.above, way[-2].key)
    inner = [(node.x, y) for node in way[1:-1] for y in (node.y, node.y + node.height)]
    return [(out, first.y + first.height), *inner, (into, last.y)]


def _port(node: _Node, neighbours: Sequence[str], key: str) -> float:
    """Where on a node's edge one of several arrows starts or ends, from left to right."""
    index, count = neighbours.index(key), len(neighbours)
    return node.x + (index + 1) / (count + 1) * node.width * 0.8 - node.width * 0.4


def _draw_arrow(arrow: Arrow, way: Sequence[_Node]) -> str:
    points = _ends(way)
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y1 + y2) / 2
        path.append(f"C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}")
    return element("path", class_="way", d="".join(path), marker_end="url(#head)")


def _draw_label(arrow: Arrow, way: Sequence[_Node]) -> str:
    if not arrow.label:
        return ""
    (x1, y1), (x2, y2) = _ends(way)[:2]
    width = _text_width(arrow.label) + 6
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    plate = _rect("plate", (x - width / 2, y - 9, width, 18), 4)
    return plate + _text("quiet", x, y + 4, arrow.label)


def _rect(style: str, box: tuple[float, float, float, float], radius: float) -> str:
    x, y, width, height = box
    return element("rect", class_=style, x=x, y=y, width=width, height=height, rx=f"{radius:.0f}")


def _text(style: str, x: float, y: float, content: str) -> str:
    return text(content, class_=style, x=x, y=y, text_anchor="middle")


def _draw_box(node: _Node) -> str:
    box = node.box
    if box is None:
        return ""
    style = "box" if box.kind == "asks" else box.kind
    radius = node.height / 2 if box.key in (START, GIVE_UP) else 8
    parts = [_rect(style, (node.x - node.width / 2, node.y, node.width, node.height), radius)]
    for index, line in enumerate(box.lines):
        y = node.y + _PAD + 11 + index * _LINE
        parts.append(_text("quiet" if index else "name", node.x, y, line))
    return "\n".join(parts)


def _draw_answer(node: _Node) -> str:
    """The pill to the right of a stage that says when it answers."""
    if node.box is None or node.box.accepts is None:
        return ""
    answer = _answer(node.box)
    width, height = _text_width(answer) + 2 * _PAD, 28
    start, middle = node.x + node.width / 2, node.y + node.height / 2
    x = start + _TAIL
    path = f"M{start:.1f} {middle:.1f}H{x:.1f}"
    way = element("path", class_="way yes", d=path, marker_end="url(#yeshead)")
    pill = _rect("answer", (x, middle - height / 2, width, height), height / 2)
    return "\n".join((way, pill, _text("say", x + width / 2, middle + 4, answer)))
