"""The figures of the dashboard, all counted from stored runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise

from markupsafe import Markup

from cascade.explain.formatting import clean, format_number, format_saving, format_usd
from cascade.policy.costs import CostEstimate
from cascade.policy.savings import Alone, PricedRun, Savings
from cascade.serve import charts
from cascade.serve.pages import tier_class
from cascade.svg import Plot, fluid
from cascade.trace import Figures, Opinion, Overview

_COLUMNS = 24  # of a chart over time
_MAX_ROWS = 10  # of a table
_ORDER = ("haiku", "sonnet", "opus")


@dataclass(frozen=True)
class TierShare:
    """A tier (None: no answer): how many runs it answered, how many were graded, how many of these right."""

    tier: str | None
    runs: int
    share: float
    cost_usd: float
    graded: int
    right: int
    bar: Markup


@dataclass(frozen=True)
class TierPair:
    """Two tiers that both gave a draft in `runs` runs; in `same` of them it was the same draft."""

    first: str
    second: str
    runs: int
    same: int


@dataclass(frozen=True)
class Conflict:
    """A run in which two tiers gave different answers."""

    figures: Figures
    opinions: tuple[Opinion, ...]


@dataclass(frozen=True)
class Period:
    """A column of the charts over time: its start, runs, spend, and three quantiles of the confidence."""

    begin: str
    runs: int
    cost_usd: float
    alone: CostEstimate
    low: float | None
    middle: float | None
    high: float | None


@dataclass(frozen=True)
class Summary:
    """What the dashboard shows."""

    runs: int
    first: str
    last: str
    answered: float
    spent: float
    savings: Savings | None
    middle_seconds: float
    graded: int
    right: int
    shares: list[TierShare]
    periods: list[Period]
    volume: Markup
    spend: Markup | None
    drift: Markup | None
    slowest: list[Figures]
    pairs: list[TierPair]
    conflicts: list[Conflict]


def summarise(overview: Overview) -> Summary | None:
    """Return the figures of the runs in `overview`; None if there are none."""
    rows = overview.figures
    if not rows:
        return None
    priced = {row.run: run for row in rows if (run := row.priced) is not None}
    alone = Alone(list(priced.values()))
    compared = {name: run for name, run in priced.items() if alone.known(run)}
    begins, columns = _columns(rows)
    names = _names(begins)
    periods = _periods(names, columns, compared, alone)
    grades = [row.correct for row in rows if row.correct is not None]
    pairs, conflicts = _disagreements(rows, overview.opinions)
    return Summary(
        runs=len(rows),
        first=min(row.started for row in rows),
        last=max(row.started for row in rows),
        answered=sum(row.status in ("accepted", "best_effort") for row in rows) / len(rows),
        spent=sum(row.cost_usd for row in rows),
        savings=alone.savings(list(priced.values())),
        middle_seconds=_quantile([row.seconds for row in rows], 0.5),
        graded=len(grades),
        right=sum(grades),
        shares=_shares(rows),
        periods=periods,
        volume=_volume(names, columns, _tiers(rows)),
        spend=_spend(periods) if compared and periods else None,
        drift=_drift(periods),
        slowest=sorted(rows, key=lambda row: -row.seconds)[:_MAX_ROWS],
        pairs=pairs,
        conflicts=conflicts[:_MAX_ROWS],
    )


def _quantile(values: Iterable[float], share: float) -> float:
    """Return the quantile of `values` at `share` (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def _answered_by(row: Figures) -> str | None:
    return row.tier if row.status in ("accepted", "best_effort") else None


def _tiers(rows: Iterable[Figures]) -> list[str | None]:
    """Return the tiers that answered, cheap ones first; None comes last if a run gave no answer."""
    tiers = {_answered_by(row) for row in rows}
    known: list[str | None] = [tier for tier in _ORDER if tier in tiers]
    others = sorted(tier for tier in tiers if tier is not None and tier not in _ORDER)
    return [*known, *others, *([None] if None in tiers else [])]


def _shares(rows: Sequence[Figures]) -> list[TierShare]:
    groups: dict[str | None, list[Figures]] = defaultdict(list)
    for row in rows:
        groups[_answered_by(row)].append(row)
    shares = []
    for tier in _tiers(rows):
        group = groups[tier]
        grades = [row.correct for row in group if row.correct is not None]
        share = len(group) / len(rows)
        bar = charts.bar(share, tier_class(tier) if tier else "nobody")
        cost = sum(row.cost_usd for row in group)
        shares.append(TierShare(tier, len(group), share, cost, len(grades), sum(grades), bar))
    return shares


def _columns(rows: Sequence[Figures]) -> tuple[list[datetime], list[list[Figures]]]:
    """Cut the time from the first to the last run into equal columns; return their starts and runs."""
    timed = [(time, row) for row in rows if (time := _time(row.started)) is not None]
    if not timed:
        return [], []
    first, last = min(time for time, _ in timed), max(time for time, _ in timed)
    width = max((last - first) / _COLUMNS, timedelta(milliseconds=1))
    columns: list[list[Figures]] = [[] for _ in range(_COLUMNS)]
    for time, row in timed:
        columns[min(_COLUMNS - 1, int((time - first) / width))].append(row)
    return [first + index * width for index in range(_COLUMNS)], columns


def _time(started: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(started)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _periods(
    names: Sequence[str],
    columns: Sequence[Sequence[Figures]],
    compared: Mapping[str, PricedRun],
    alone: Alone,
) -> list[Period]:
    periods = []
    for name, group in zip(names, columns, strict=True):
        sure = [row.confidence for row in group if row.confidence is not None]
        priced = [compared[row.run] for row in group if row.run in compared]
        low, middle, high = (_quantile(sure, share) if sure else None for share in (0.1, 0.5, 0.9))
        spent = sum(run.cost_usd for run in priced)
        periods.append(Period(name, len(group), spent, alone.total(priced), low, middle, high))
    return periods


def _names(times: Sequence[datetime]) -> list[str]:
    """Return times as labels, as short as they can be told apart."""
    if not times:
        return []
    length = times[-1] - times[0]
    shape = "%b %d" if length > timedelta(days=4) else "%b %d %H:%M"
    if length < timedelta(hours=20) and times[0].date() == times[-1].date():
        shape = "%H:%M" if length > timedelta(minutes=24) else "%H:%M:%S"
    return [f"{time:{shape}}" for time in times]


def _ends(names: Sequence[str]) -> list[str]:
    return [names[0], names[len(names) // 2], names[-1]] if names else []


def _volume(
    names: Sequence[str], columns: Sequence[Sequence[Figures]], tiers: Sequence[str | None]
) -> Markup:
    """Runs over time, stacked by the tier that answered."""
    title = "Runs over time by the tier that answered; the table below has the totals"
    plot = Plot(title, frame=fluid(130.0))
    maximum = max((len(group) for group in columns), default=1)
    plot.rule(0.0)
    plot.rule(1.0, f"{maximum} runs")
    for index, group in enumerate(columns):
        counts = Counter(_answered_by(row) for row in group)
        base = 0.0
        for tier in (tier for tier in tiers if counts[tier]):
            corner, size = ((index + 0.11) / _COLUMNS, base), (0.78 / _COLUMNS, counts[tier] / maximum)
            hint = f"{names[index]}: {counts[tier]} × {clean(tier or 'no answer', 40)}"
            plot.block(corner, size, tier_class(tier) if tier else "nobody", hint)
            base += counts[tier] / maximum
    plot.below(_ends(names))
    return charts.markup(plot.svg())


def _spend(periods: Sequence[Period]) -> Markup:
    """Money spent up to each time, beside what the baseline alone would have cost."""
    spent = list(accumulate(period.cost_usd for period in periods))
    alone = list(accumulate(period.alone.cost_usd for period in periods))
    maximum = max(spent[-1], alone[-1]) or 1.0
    plot = Plot(
        f"Spent {format_usd(spent[-1])}; the baseline alone would have cost {format_usd(alone[-1])}",
        frame=fluid(),
    )
    plot.rule(0.0, "$0")
    plot.rule(0.5, format_usd(maximum / 2))
    plot.rule(1.0, format_usd(maximum))
    for values, style in ((alone, "baseline"), (spent, "spent")):
        for points in charts.curves(values, maximum):
            plot.line(points, f"{style}-line")
    plot.below(_ends([period.begin for period in periods]))
    return charts.markup(plot.svg())


def _drift(periods: Sequence[Period]) -> Markup | None:
    """Confidence over time: the middle, and the band from the lowest to the highest tenth."""
    known = [index for index, period in enumerate(periods) if period.middle is not None]
    if not known:
        return None
    first, last = periods[known[0]].middle or 0.0, periods[known[-1]].middle or 0.0
    plot = Plot(
        f"Median confidence over time: {format_number(first)} at first, {format_number(last)} at last",
        frame=fluid(),
    )
    for y in (0.0, 0.5, 1.0):
        plot.rule(y, f"{y:g}")
    low = charts.curves([period.low for period in periods], 1.0)
    high = charts.curves([period.high for period in periods], 1.0)
    for below, above in zip(low, high, strict=True):
        plot.area([*below, *reversed(above)], "band")
    for points in charts.curves([period.middle for period in periods], 1.0):
        plot.line(points, "middle-line")
    plot.below(_ends([period.begin for period in periods]))
    return charts.markup(plot.svg())


def _disagreements(
    rows: Sequence[Figures], opinions: dict[str, tuple[Opinion, ...]]
) -> tuple[list[TierPair], list[Conflict]]:
    """Compare the drafts of neighbouring stages, where at least one of a run's drafts is a label."""
    both: Counter[tuple[str, str]] = Counter()
    same: Counter[tuple[str, str]] = Counter()
    conflicts = []
    for row in rows:
        drafts = opinions.get(row.run, ())
        if not any(draft.closed for draft in drafts):
            continue  # two free texts are never equal
        for left, right in pairwise(drafts):
            both[left.tier, right.tier] += 1
            same[left.tier, right.tier] += _key(left) == _key(right)
        if len({_key(draft) for draft in drafts}) > 1:
            conflicts.append(Conflict(row, drafts))
    pairs = [TierPair(*pair, count, same[pair]) for pair, count in both.most_common()]
    return pairs, conflicts


def _key(opinion: Opinion) -> str:
    return opinion.text.strip().casefold()


def saving(summary: Summary) -> str | None:
    """Return how much less, or more, the runs cost than the baseline alone; None if that is unknown."""
    found = summary.savings
    return None if found is None else format_saving(found.share, found.share_low, found.share_high)
