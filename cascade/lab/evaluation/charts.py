"""The charts of a policy report: what to draw from an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from cascade.lab.evaluation.confidences import ScoredAnswers
from cascade.lab.evaluation.evaluation import Evaluation
from cascade.lab.evaluation.formatting import per_thousand, percent
from cascade.lab.evaluation.metrics import Figure
from cascade.svg import SERIES, Axis, Plot, Point, axis_around, element, marker

BINS = 10  # of a reliability diagram, of equal mass
_MAX_POINTS = 200  # points of a drawn curve


def cost_quality(evaluation: Evaluation) -> str:
    """Draw mean cost against accuracy: the policy, its curve, and each model alone."""
    alone = {name: _alone(evaluation, name) for name in evaluation.outcomes.models}
    here = evaluation.figures["mean_cost_usd"], evaluation.figures["accuracy"]
    point = here[0].value, here[1].value
    known = [at for at in alone.values() if at is not None]
    across, up = (_interval(figure) for figure in here)
    reach = [*known, *evaluation.curve, point, *((point[0], end) for end in up or ())]
    plot = _plot(
        "Cost and accuracy",
        axis_around(
            "US dollars per 1,000 requests",
            [x for x, _ in reach],
            lambda v: per_thousand(v, ""),
            room_at_zero=1e-3,
        ),
        axis_around("accuracy", [y for _, y in reach], percent, room_at_zero=1.0),
    )
    plot.line(evaluation.curve, _series_line(0))
    for x, y in evaluation.curve:
        plot.dot((x, y), 0, f"thresholds moved: {per_thousand(x)}, {percent(y)} right", 2.5)
    plot.whiskers(point, across, up, 1)
    plot.dot(point, 1, f"the policy: {per_thousand(point[0])}, {percent(point[1])} right", 5.5)
    for name, at in alone.items():
        if at is not None:
            plot.dot(at, 2, f"{name} alone: {per_thousand(at[0])}, {percent(at[1])} right")
    plot.label(point, "policy")
    for name, at in alone.items():
        if at is not None:
            plot.label(at, name)
    legend = [
        (1, "the policy"),
        (2, "one model alone"),
        *([(0, "thresholds moved")] if evaluation.curve else []),
    ]
    return plot.svg() + _legend(legend)


def reliability(evaluation: Evaluation) -> str | None:
    """Draw confidence against accuracy in bins of equal mass; None without a confidence."""
    series = _series(evaluation, probability=True)
    if not series:
        return None
    plot = _plot("Reliability", Axis("confidence", show=percent), Axis("accuracy", show=percent))
    plot.line([(0, 0), (1, 1)], "line ideal dashed")
    for number, (name, checked) in enumerate(series):
        points = _bins(checked)
        plot.line(points, _series_line(number))
        for x, y in points:
            plot.dot((x, y), number, f"{name}: confidence {percent(x)}, {percent(y)} right", 4)
    return plot.svg() + _legend([(number, name) for number, (name, _) in enumerate(series)])


def risk_coverage(evaluation: Evaluation) -> str | None:
    """Draw the error among the most confident answers against their share; None without a confidence."""
    series = _series(evaluation, probability=False)
    if not series:
        return None
    curves = [_risks(checked) for _, checked in series]
    alphas = {
        certificate["alpha"] for certificate in evaluation.certificates if certificate["kind"] == "max_risk"
    }
    top = max([*alphas, *(y for curve in curves for _, y in curve), 0.01])
    plot = _plot(
        "Risk and coverage",
        Axis("share of answers accepted", show=percent),
        Axis("error among them", 0, top * 1.1, percent),
    )
    for alpha in sorted(alphas):
        plot.rule(alpha, f"promised {percent(alpha)}", "rule")
    for number, curve in enumerate(curves):
        plot.line(curve, _series_line(number))
        plot.dot(curve[-1], number, f"{series[number][0]}: all accepted, {percent(curve[-1][1])} wrong")
    return plot.svg() + _legend([(number, name) for number, (name, _) in enumerate(series)])


def _series(evaluation: Evaluation, *, probability: bool) -> list[tuple[str, ScoredAnswers]]:
    """Return the confidences of the policy's models; those of other models only if the policy has none."""
    ours = [name for name in evaluation.policy.chain if evaluation.checked[name]]
    first = [
        (name, evaluation.checked[name][0]) for name in ours or evaluation.checked if evaluation.checked[name]
    ]
    usable = [item for item in first if len(item[1].quality) and (item[1].is_probability or not probability)]
    return usable[:SERIES]


def _alone(evaluation: Evaluation, name: str) -> Point | None:
    model = evaluation.outcomes.models[name]
    graded = ~np.isnan(model.quality)
    return (
        (float(model.cost_usd[graded].mean()), float(model.quality[graded].mean())) if graded.any() else None
    )


def _interval(figure: Figure) -> Point | None:
    return None if np.isnan(figure.low) else (figure.low, figure.high)


def _bins(checked: ScoredAnswers) -> list[Point]:
    order = np.argsort(checked.confidence, kind="stable")
    parts = np.array_split(order, min(BINS, len(order)))
    means = [(checked.confidence[part].mean(), checked.quality[part].mean()) for part in parts]
    return [(float(x), float(y)) for x, y in means]


def _risks(checked: ScoredAnswers) -> list[Point]:
    """Return selective risk by coverage wherever a threshold can cut: after the last of equal confidences."""
    order = np.argsort(-checked.confidence, kind="stable")
    wrong = np.cumsum(1.0 - checked.quality[order])
    count = np.arange(1, len(order) + 1)
    ends = np.flatnonzero(np.diff(checked.confidence[order], append=-np.inf))
    kept = ends[np.unique(np.linspace(0, len(ends) - 1, _MAX_POINTS).astype(int))]
    return [(float(count[row] / len(order)), float(wrong[row] / count[row])) for row in kept]


def _plot(title: str, x: Axis, y: Axis) -> Plot:
    plot = Plot(title, x, y)
    plot.axes()
    return plot


def _series_line(series: int) -> str:
    return f"line s{series % SERIES}"


def forest(value: float, interval: Sequence[float], axis: Axis) -> str:
    """Return one row of a forest plot: a value with its (low, high)."""
    width, middle = 120, 8
    low, at, high = (4 + (width - 8) * axis.share(number) for number in (interval[0], value, interval[1]))
    return element(
        "svg",
        element("line", class_="grid", x1=4, y1=middle, x2=width - 4, y2=middle),
        element("line", class_="line s0", x1=low, y1=middle, x2=high, y2=middle),
        element("g", marker(at, middle, 4, 0), class_="dot s0"),
        class_="forest", viewBox=f"0 0 {width} {2 * middle}", aria_hidden="true",
    )  # fmt: skip


def key(series: int) -> str:
    """Return a small picture of a series' marker, for legends."""
    shape = element("g", marker(7, 7, 4.5, series), class_=f"dot s{series % SERIES}")
    return element("svg", shape, class_="key", viewBox="0 0 14 14", aria_hidden="true")


def _legend(items: list[tuple[int, str]]) -> str:
    entries = (f"<li>{key(series)}{escape(name)}</li>" for series, name in items)
    return f'<ul class="legend">{"".join(entries)}</ul>'
