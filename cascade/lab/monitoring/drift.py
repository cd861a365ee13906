"""Drift: do live scores still look like those that a stage was calibrated on? Test as often as you like.

Two questions are asked of each live run: was it accepted, and is its score below certain quantiles of the
reference? Each is a coin whose rate the reference knows to within an interval (Clopper and Pearson 1934).
Live coins bet against every rate in that interval. The wealth is the mixture of Krichevsky and Trofimov
(1981) over all rates, divided by the likelihood of the best rate in the interval. Without drift it never
exceeds a nonnegative martingale that starts at 1, so by Ville's inequality (1939) it ever reaches 1/a with
probability at most a, no matter how often one looks (Ramdas, Grünwald, Vovk and Shafer 2023, Statistical
Science 38). The mean of several such processes is one as well. Half of the probability of a false alarm
pays for the intervals.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from cascade.files import read_record
from cascade.policy.calibrate import DECIMALS, KEPT_SCORES, Finite
from cascade.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_RUNS = 30  # fewer live runs say little, whatever the wealth
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the reference, which live scores are compared with

Verdict = Literal["ok", "drifted", "too few runs", "no reference"]


class Reference(Record):
    """The scores of a stage's `rows` answers, ascending and thinned by `calibrate.thin`."""

    by: str
    signal: str
    rows: int = Field(ge=1)
    scores: tuple[Finite, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _thinned(self) -> Self:
        if len(self.scores) != min(self.rows, KEPT_SCORES):
            raise ValueError(
                f"{len(self.scores)} scores; expected {min(self.rows, KEPT_SCORES)} of {self.rows} rows"
            )
        if list(self.scores) != sorted(self.scores):
            raise ValueError("scores must not decrease")
        return self

    def below(self, index: int) -> tuple[int, int]:
        """Return bounds of the number of rows below a score that `index` of the kept scores are below."""
        kept = len(self.scores)
        if index in (0, kept):
            return (0, 0) if index == 0 else (self.rows, self.rows)
        ranks = [round(i * (self.rows - 1) / (kept - 1)) for i in (index - 1, index)]
        return ranks[0] + 1, ranks[1]


class References(Record):
    """A file of references: stage name → its scores in runs of `graph` (`name@digest`) up to `written`."""

    graph: str
    written: str
    stages: dict[str, Reference]


@dataclass(frozen=True)
class Drift:
    """What live scores say.

    Attributes:
        runs: number of live runs with a score.
        reference: share of the reference that the stage's threshold accepts.
        live: the same share of the live runs; None without any.
        e_value: the greatest wealth so far of the bets against "no drift"; 1 is no evidence of drift.
        since: index of the live run at which the wealth reached the alarm; None if it never did.
        verdict: `drifted` if it did; `too few runs` for fewer than 30.
    """

    runs: int
    reference: float
    live: float | None
    e_value: float
    since: int | None
    verdict: Verdict


def drift(
    reference: Reference,
    live: Sequence[float],
    *,
    accept: float,
    confidence: Callable[[float], float],
    delta: float = 0.01,
) -> Drift:
    """Compare live scores, in the order in which they came, with a reference.

    Args:
        reference: the scores of the calibration's rows, or of earlier runs.
        live: scores since a start that was fixed beforehand; requests must be independent of each other.
        accept: the stage's threshold.
        confidence: the stage's nondecreasing map from score to confidence.
        delta: the probability of a false alarm, ever.

    Raises:
        ValueError: `delta` is not between 0 and 1.
    """
    import numpy as np

    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta!r}; expected a probability between 0 and 1")
    scores = reference.scores
    index = bisect_left(scores, accept, key=confidence)
    refused = sum(reference.below(index)) / 2 / reference.rows
    if not live:
        return Drift(0, 1 - refused, None, 1.0, None, "too few runs")
    values = np.round(
        np.asarray(live, dtype=float), DECIMALS
    )  # like the reference, so that equals stay equal
    taken = np.asarray([confidence(score) >= accept for score in values.tolist()])
    coins = [(~taken, reference.below(index))]
    for share in _QUANTILES:
        edge = scores[round(share * (len(scores) - 1))]
        coins.append((values < edge, reference.below(bisect_left(scores, edge))))
    risk = delta / 2 / len(coins)
    wealth = [_log_wealth(coin, _interval(below, reference.rows, risk)) for coin, below in coins]
    # Half of the stake is on acceptance, which is what users see; the quantiles share the rest.
    weights = np.log([0.5, *[0.5 / len(_QUANTILES)] * len(_QUANTILES)])
    total = np.logaddexp.reduce(np.asarray(wealth) + weights[:, None], axis=0)
    alarms = np.flatnonzero(total >= np.log(2 / delta))
    since = int(alarms[0]) if len(alarms) else None
    verdict: Verdict = "drifted" if since is not None else "ok" if len(live) >= MIN_RUNS else "too few runs"
    e_value = max(1.0, float(np.exp(min(float(total.max()), 700.0))))
    return Drift(len(live), 1 - refused, float(taken.mean()), e_value, since, verdict)


def read_references(path: str | Path) -> Mapping[str, Reference]:
    """Read a file written by `cascade monitor --write-reference`.

    Raises:
        ConfigError: the file is missing, is not JSON, or is not a valid reference.
    """
    redo = "write it anew with 'cascade monitor --write-reference'"
    return read_record(References, path, "reference", redo).stages


def _interval(below: tuple[int, int], rows: int, risk: float) -> tuple[float, float]:
    """Return the confidence interval of a rate, seen between `below[0]` and `below[1]` times in `rows`."""
    from scipy.stats import beta

    lower, upper = below
    low = float(beta.ppf(risk / 2, lower, rows - lower + 1)) if lower > 0 else 0.0
    high = float(beta.ppf(1 - risk / 2, upper + 1, rows - upper)) if upper < rows else 1.0
    return low, high


def _log_wealth(coin: NDArray[np.bool_], interval: tuple[float, float]) -> NDArray[np.float64]:
    """Return, after each toss, the log of the mixture's likelihood over the best one in `interval`."""
    import numpy as np
    from scipy.special import betaln, xlog1py, xlogy

    tosses = np.arange(1, len(coin) + 1)
    heads = np.cumsum(coin)
    rate = np.clip(heads / tosses, *interval)
    mixture = betaln(heads + 0.5, tosses - heads + 0.5) - betaln(0.5, 0.5)
    best: NDArray[np.float64] = mixture - (xlogy(heads, rate) + xlog1py(tosses - heads, -rate))
    return best
