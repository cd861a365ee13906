"""A challenge in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade.lab.evaluation.formatting import duration, money, percent

if TYPE_CHECKING:
    from cascade.lab.inventory.challenge import ChallengeReport, Duel
    from cascade.lab.inventory.contest import Contest


def conclusions(report: ChallengeReport) -> list[str]:
    """Return what follows: a sentence for each expert, then what the figures stand on."""
    found = [_conclusion(report.challenger, duel) for duel in report.duels]
    if report.graded:
        found.append(
            f"{report.graded} labels are answers of these very models that were graded right, which favours "
            "the model that gave them; rows that a person labelled (--data) judge fairly."
        )
    found.append(
        f"{report.rows} rows; {report.challenger} cost {money(report.spent_usd)} of at most "
        f"{money(report.most_usd)} that was allowed for."
    )
    return [*found, *report.remarks]


def _conclusion(challenger: str, duel: Duel) -> str:
    found, name = duel.judged, duel.expert
    where = "on the rows that it would answer" if found is duel.answering else "on all rows"
    ends = f"{_points(found.low)} to {_points(found.high)}"
    apart = f"{challenger} {_apart(found)} ({ends} points, {where}; McNemar p = {found.p_value:.2g})"
    matters = f"{100 * found.margin:g} points"
    if found.finding == "retire":
        return (
            f"{name} should retire: {apart}, more than the {matters} that matter. {_price(challenger, duel)}"
        )
    if found.finding == "keep":
        more = "beats" if found.high < 0 else "holds against"
        return f"{name} {more} {challenger} on quality: {apart}. Keep it. {_price(challenger, duel)}"
    if found.finding == "watch":
        return (
            f"{name} is worse, but perhaps by less than the {matters} that matter: {apart}. "
            f"Watch it. {_price(challenger, duel)}"
        )
    needed = found.rows_needed
    rest = "" if needed is None else f"; about {needed:,} rows like these would"
    return f"{name}: these rows do not tell: {apart}{rest}. {_price(challenger, duel)}"


def _apart(found: Contest) -> str:
    right = (
        f"{percent(found.challenger / found.rows)} against {percent(found.expert / found.rows)} of "
        f"{found.rows} rows"
    )
    if found.difference == 0:
        return f"is as often right, {right}"
    better = "better" if found.difference > 0 else "worse"
    return f"is {better} by {_points(abs(found.difference))} points, {right}"


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")


def _price(challenger: str, duel: Duel) -> str:
    mine, other = duel.usd_a_thousand
    fast, slow = duel.median_seconds
    cheaper = "it is cheaper" if mine < other else "it is dearer" if mine > other else "both cost the same"
    return (
        f"For 1,000 requests {cheaper}: {money(mine)} against {money(other)} for {challenger}, and takes "
        f"{duration(fast)} against {duration(slow)} (median)."
    )
