"""Drift: do live scores still look like those that a stage was calibrated on? Asked as often as you like.

Two questions about each live run: was it accepted, and did its score stay below certain quantiles of the
reference? Each is a coin whose rate the reference knows to within an interval (Clopper and Pearson 1934).
Live coins bet against every rate of that interval: the wealth is the mixture of Krichevsky and Trofimov
(1981) over all rates, divided by the likelihood of the best rate inside the interval. If nothing drifted
this never exceeds a nonnegative martingale that starts at 1, so by Ville's inequality (1939) it ever
reaches 1/a with probability at most a, however often one looks (Ramdas, Grünwald, Vovk and Shafer 2023,
Statistical Science 38). The mean of several such processes is one, too. Half of the probability of a false
alarm pays for the intervals.
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

LEAST_RUNS = 30  # fewer live runs say little, whatever the wealth is
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # the reference's quantiles that live scores are held against

Verdict = Literal["ok", "drifted", "too few runs", "no reference"]


class Reference(Record):
    """The scores that a stage had: `scores` of `rows` answers, thinned by `calibrate.thin`."""

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

    def below(self, place: int) -> tuple[int, int]:
        """Return the least and the most rows below a score that `place` of the kept scores are below."""
        kept = len(self.scores)
        if place in (0, kept):
            return (0, 0) if place == 0 else (self.rows, self.rows)
        ranks = [round(i * (self.rows - 1) / (kept - 1)) for i in (place - 1, place)]
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
        runs: live runs with a score.
        reference: share of the reference that the stage's threshold accepts.
        live: the same of the live runs; None without any.
        e_value: the greatest wealth of the bets against "no drift" so far; at 1 nothing speaks for drift.
        since: index of the live run at which it reached the alarm; None if it never did.
        verdict: `drifted` if it did; `too few runs` under 30.
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
    """Compare live scores, in the order in which they came, with `reference`.

    Args:
        reference: the scores of the calibration's rows, or of earlier runs.
        live: scores since a start that was fixed beforehand; requests must not depend on each other.
        accept: the stage's threshold.
        confidence: the stage's nondecreasing map from score to confidence.
        delta: probability of a false alarm, ever.

    Raises:
        ValueError: `delta` is not between 0 and 1.
    """
    import numpy as np

    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta!r}; expected a probability between 0 and 1")
    scores = reference.scores
    place = bisect_left(scores, accept, key=confidence)
    refused = sum(reference.below(place)) / 2 / reference.rows
    if not live:
        return Drift(0, 1 - refused, None, 1.0, None, "too few runs")
    values = np.round(np.asarray(live, dtype=float), DECIMALS)  # as the reference is, else equals differ
    taken = np.asarray([confidence(score) >= accept for score in values.tolist()])
    coins = [(~taken, reference.below(place))]
    for share in _SHARES:
        edge = scores[round(share * (len(scores) - 1))]
        coins.append((values < edge, reference.below(bisect_left(scores, edge))))
    risk = delta / 2 / len(coins)
    wealth = [_log_wealth(coin, _interval(below, reference.rows, risk)) for coin, below in coins]
    # Half of the stake is on acceptance, which is what users see; the rest is spread over the quantiles.
    weights = np.log([0.5, *[0.5 / len(_SHARES)] * len(_SHARES)])
    total = np.logaddexp.reduce(np.asarray(wealth) + weights[:, None], axis=0)
    alarms = np.flatnonzero(total >= np.log(2 / delta))
    since = int(alarms[0]) if len(alarms) else None
    verdict: Verdict = "drifted" if since is not None else "ok" if len(live) >= LEAST_RUNS else "too few runs"
    e_value = max(1.0, float(np.exp(min(float(total.max()), 700.0))))
    return Drift(len(live), 1 - refused, float(taken.mean()), e_value, since, verdict)


def read_references(path: str | Path) -> Mapping[str, Reference]:
    """Read a file that `cascade monitor --write-reference` wrote.

    Raises:
        ConfigError: the file is missing, is not JSON, or is not a valid reference.
    """
    redo = "write it anew with 'cascade monitor --write-reference'"
    return read_record(References, path, "reference", redo).stages


def _interval(below: tuple[int, int], rows: int, risk: float) -> tuple[float, float]:
    """Return the interval of a rate of which at least and at most `below` of `rows` were seen."""
    from scipy.stats import beta

    least, most = below
    low = float(beta.ppf(risk / 2, least, rows - least + 1)) if least > 0 else 0.0
    high = float(beta.ppf(1 - risk / 2, most + 1, rows - most)) if most < rows else 1.0
    return low, high


def _log_wealth(coin: NDArray[np.bool_], interval: tuple[float, float]) -> NDArray[np.float64]:
    """Return, after each toss, the log of the mixture's likelihood over the best one inside `interval`."""
    import numpy as np
    from scipy.special import betaln, xlog1py, xlogy

    tosses = np.arange(1, len(coin) + 1)
    heads = np.cumsum(coin)
    rate = np.clip(heads / tosses, *interval)
    mixture = betaln(heads + 0.5, tosses - heads + 0.5) - betaln(0.5, 0.5)
    best: NDArray[np.float64] = mixture - (xlogy(heads, rate) + xlog1py(tosses - heads, -rate))
    return best
