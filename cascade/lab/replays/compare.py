"""Recorded runs beside what they would have become: counts and costs, bounded where they are not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cascade.lab.replays.replay import ReplayOutcome, ReplayResult
from cascade.records import Result

ANSWERED = ("accepted", "best_effort")


@dataclass(frozen=True)
class Change:
    """A run that would, or might, have ended differently; `unknown` is the stage it would have called."""

    run: str
    old: ReplayOutcome
    new: tuple[ReplayOutcome, ...]
    old_cost: float
    lowest: float
    highest: float | None
    unknown: str | None


@dataclass
class ReplayComparison:
    """Runs as recorded and as replayed.

    Attributes:
        runs: how many.
        unknown: stage → runs that would have called it first and never did.
        old: (kind, name) → runs, where kind is `status` or `tier`.
        certain: the same for the replay: runs that certainly end this way.
        possible: runs that may end this way.
        old_cost: what the runs cost, in USD.
        lowest: lower bound of what they would have cost, in USD.
        highest: upper bound; None if there is none.
        changes: the runs that end differently, in the order of the runs.
    """

    runs: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    old: Counter[tuple[str, str]] = field(default_factory=Counter)
    certain: Counter[tuple[str, str]] = field(default_factory=Counter)
    possible: Counter[tuple[str, str]] = field(default_factory=Counter)
    old_cost: float = 0.0
    lowest: float = 0.0
    highest: float | None = 0.0
    changes: list[Change] = field(default_factory=list)

    def add(self, result: Result, replayed: ReplayResult) -> None:
        """Count one run."""
        old = recorded(result)
        self.runs += 1
        self.unknown.update([replayed.unknown] if replayed.unknown is not None else [])
        self.old.update(_kinds(old))
        kinds = [_kinds(outcome) for outcome in replayed.outcomes]
        self.certain.update(set.intersection(*kinds))
        self.possible.update(set.union(*kinds))
        self.old_cost += result.cost_usd
        self.lowest += replayed.lowest
        if self.highest is not None:
            self.highest = None if replayed.highest is None else self.highest + replayed.highest
        if replayed.outcomes != (old,):
            bounds = replayed.lowest, replayed.highest, replayed.unknown
            self.changes.append(Change(result.run, old, replayed.outcomes, result.cost_usd, *bounds))

    def tiers(self) -> list[str]:
        """Return every tier that answers, or may answer, the one that answered most first."""
        names = {name for kind, name in self.old | self.possible if kind == "tier"}
        return sorted(names, key=lambda name: (-self.old["tier", name], -self.possible["tier", name], name))


def recorded(result: Result) -> ReplayOutcome:
    """Return how `result` ended."""
    if result.status not in ANSWERED:
        return ReplayOutcome(result.status)
    return ReplayOutcome(result.status, result.stage, result.tier)


def compare(results: Iterable[Result], replay_one: Callable[[Result], ReplayResult]) -> ReplayComparison:
    """Replay every run and count."""
    comparison = ReplayComparison()
    for result in results:
        comparison.add(result, replay_one(result))
    return comparison


def _kinds(outcome: ReplayOutcome) -> set[tuple[str, str]]:
    """What a run that ends so is counted as."""
    kinds = {("status", outcome.status)}
    if outcome.status in ANSWERED:
        kinds |= {("status", "answered"), ("tier", str(outcome.tier))}
    return kinds
