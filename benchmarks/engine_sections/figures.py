"""Medians of ratios, percentiles, rows with their targets, and tables of them. No measuring here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np

QUIET = 0.06  # cores that other processes may use in a round that counts as quiet
ENOUGH = 3  # quiet rounds that make the others unnecessary


class Target(NamedTuple):
    """A bound that a value has to keep: `at least` or `at most`."""

    bound: float
    least: bool

    def met(self, value: float) -> bool:
        """Whether `value` keeps it; NaN does not."""
        return value >= self.bound if self.least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Target:
    """Return the target of a value that should be high."""
    return Target(bound, least=True)


def at_most(bound: float) -> Target:
    """Return the target of a value that should be low."""
    return Target(bound, least=False)


class Round(NamedTuple):
    """One side-by-side measurement: ours, the baseline's, and the cores that other processes used."""

    ours: float
    theirs: float
    others: float


class Verdict(NamedTuple):
    """The median of `rounds` ratios; `others` is the most that other processes used in one of them."""

    ratio: float
    ours: float
    theirs: float
    rounds: int
    others: float


@dataclass(frozen=True)
class Row:
    """One figure. `value` is None where it could not be measured; `note` says why, or gives detail."""

    section: str
    what: str
    model: str
    value: float | None
    unit: str = "ratio"
    target: Target | None = None
    others: float = math.nan
    rounds: int = 1
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a value."""
        if self.target is None or self.value is None or math.isnan(self.value):
            return None
        return self.target.met(self.value)

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON, with the verdict."""
        shown = None if self.target is None else str(self.target)
        return {**asdict(self), "target": shown, "met": self.met}


def verdict_row(
    section: str, what: str, model: str, found: Verdict, target: Target | None = None, note: str = ""
) -> Row:
    """Return the row of a median of ratios."""
    return Row(section, what, model, found.ratio, "ratio", target, found.others, found.rounds, note)


def skipped(section: str, what: str, model: str, why: str, target: Target | None = None) -> Row:
    """Return the row of a figure that cannot be measured here."""
    return Row(section, what, model, None, target=target, rounds=0, note=f"skipped: {why}")


def quiet(rounds: Sequence[Round]) -> Sequence[Round]:
    """Return the rounds without disturbance if there are `ENOUGH`, else all of them.

    Where the load is not known (NaN) a round counts as disturbed.
    """
    calm = [one for one in rounds if one.others <= QUIET]
    return calm if len(calm) >= ENOUGH else rounds


def judge(rounds: Sequence[Round], *, times: bool = False) -> Verdict:
    """Return the median of the ratios ours ÷ theirs, or theirs ÷ ours where the two are `times`.

    Raises:
        ValueError: there are no rounds.
    """
    if not rounds:
        raise ValueError("no rounds were measured; a verdict needs one")
    kept = quiet(rounds)
    ratios = [_ratio(one.theirs, one.ours) if times else _ratio(one.ours, one.theirs) for one in kept]
    return Verdict(
        median(ratios),
        median(one.ours for one in kept),
        median(one.theirs for one in kept),
        len(kept),
        max((one.others for one in kept), key=lambda share: math.inf if math.isnan(share) else share),
    )


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99; NaN without values."""
    if not values:
        return dict.fromkeys(("p50", "p95", "p99"), math.nan)
    found = np.quantile(np.asarray(values), [0.5, 0.95, 0.99])
    return {name: float(value) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the slope of the least-squares line through the points.

    Raises:
        ValueError: there are fewer than two points.
    """
    if len(xs) < 2:
        raise ValueError(f"{len(xs)} points; a slope needs two")
    return float(np.polyfit(np.asarray(xs, float), np.asarray(ys, float), 1)[0])


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a plain row as the cells of a table."""
    met = {True: "yes", False: "NO", None: ""}[row["met"]]
    load = row["others"]
    busy = "–" if load is None or math.isnan(load) else f"{load:.2f}{'' if load <= QUIET else ' busy'}"
    return [
        str(row["section"]),
        str(row["what"]),
        str(row["model"]),
        _number(row["value"], row["unit"]),
        row["target"] or "",
        met,
        busy,
        str(row["rounds"]),
        str(row["note"]),
    ]


COLUMNS = ("section", "figure", "model", "value", "target", "met", "others", "rounds", "detail")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _number(value: float | None, unit: str) -> str:
    if value is None or math.isnan(value):
        return "–"
    ending = "×" if unit == "ratio" else f" {unit}".rstrip()
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}{ending}"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}{ending}"
