"""Two models on the same rows: which is better, by how much at least and at most, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cascade.policy.bounds import loss_upper
from cascade.policy.intervals import Interval, wilson
from cascade.records import Record

Finding = Literal["keep", "retire", "watch", "undecided"]
_LEVEL = 0.05


class Contest(Record):
    """An expert and a challenger on the same rows.

    Attributes:
        rows: how many both answered.
        expert, challenger: how many each got right.
        expert_ci, challenger_ci: their 95 % intervals (Wilson).
        lost: rows that the expert alone got wrong.
        won: rows that the challenger alone got wrong.
        difference: accuracy of the challenger minus that of the expert.
        low, high: its exact interval for paired rows, at 95 % over all experts that are compared at once.
        p_value: of McNemar's exact test that both are equally good.
        margin: the difference that matters.
    """

    rows: int
    expert: int
    challenger: int
    expert_ci: tuple[float, float]
    challenger_ci: tuple[float, float]
    lost: int
    won: int
    difference: float
    low: float
    high: float
    p_value: float
    margin: float

    @property
    def finding(self) -> Finding:
        """What follows for the expert.

        `retire`: the challenger is better by more than the margin. `watch`: it is better, if only by little.
        `keep`: it is not better by more than the margin. Else the rows do not tell.
        """
        if self.low > self.margin:
            return "retire"
        if self.high <= self.margin:
            return "keep"
        return "watch" if self.low > 0 else "undecided"

    @property
    def rows_needed(self) -> int | None:
        """About how many rows like these would tell; None if these do, or if no number would."""
        gap = abs(self.difference - self.margin)
        if self.finding != "undecided" or gap == 0:
            return None
        reach = (self.high - self.low) / 2
        return max(self.rows + 1, round(self.rows * (reach / gap) ** 2))


def contest(
    expert: Sequence[bool], challenger: Sequence[bool], *, margin: float, compared: int = 1
) -> Contest:
    """Compare two models by whether they were right on each row.

    The interval of the difference is exact (`policy.bounds.loss_upper`, Berger and Boos 1994); its error is
    shared among the experts that are compared at once (Bonferroni). The test is McNemar's (1947), exact.

    Args:
        expert: whether the expert was right, by row.
        challenger: whether the challenger was right on the same rows; as many, at least one.
        margin: the difference in accuracy that matters.
        compared: how many experts are compared at once.
    """
    from scipy.stats import binomtest

    pairs = list(zip(expert, challenger, strict=True))
    rows = len(pairs)
    lost, won = sum(c and not e for e, c in pairs), sum(e and not c for e, c in pairs)
    delta = _LEVEL / 2 / compared
    return Contest(
        rows=rows,
        expert=sum(expert),
        challenger=sum(challenger),
        expert_ci=_ends(wilson(sum(expert), rows)),
        challenger_ci=_ends(wilson(sum(challenger), rows)),
        lost=lost,
        won=won,
        difference=(lost - won) / rows,
        low=-loss_upper(won, lost, rows, delta),
        high=loss_upper(lost, won, rows, delta),
        p_value=float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
        margin=margin,
    )


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high
