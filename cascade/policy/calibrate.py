"""Calibration: the fitted map from a score to P(correct), stored as small readable JSON.

Reading and applying a map needs only the standard library, so `cascade check` stays instant; numpy and
scipy load when a map is fitted. All scores of `cascade.confidence` lie in [0, 1].
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from cascade.files import read_record, write_whole
from cascade.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Method = Literal["isotonic", "platt"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Inside = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
DECIMALS = 9  # of stored numbers; scores are rounded before fitting, so that knots stay distinct
KEPT_SCORES = 501  # so that a share of the rows is known to 0.2 %
_EDGE = 1e-9  # a logistic curve reaches 0 and 1 in floating point; a confidence never does


class Curve(Record):
    """A nondecreasing map from a score to P(correct), never 0 or 1.

    isotonic: linear between the knots (`x`, `y`) and constant beyond them.
    platt: 1 / (1 + exp(−(a·score + b))).
    """

    method: Method
    x: tuple[Finite, ...] = ()
    y: tuple[Inside, ...] = ()
    a: float | None = Field(None, ge=0.0, allow_inf_nan=False)
    b: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method == "platt":
            if self.a is None or self.b is None or self.x or self.y:
                raise ValueError("method 'platt' needs a and b, and no x or y")
            return self
        if self.a is not None or self.b is not None:
            raise ValueError("method 'isotonic' has no a or b")
        if not self.x or len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} x and {len(self.y)} y; method 'isotonic' needs one y for each x")
        if any(left >= right for left, right in pairwise(self.x)):
            raise ValueError("x must increase from knot to knot")
        if any(left > right for left, right in pairwise(self.y)):
            raise ValueError("y must not decrease from knot to knot")
        return self

    def apply(self, score: float) -> float:
        """Return P(correct) at `score`, a finite number.

        Raises:
            ValueError: `score` is NaN or infinite.
        """
        if not math.isfinite(score):
            raise ValueError(f"score is {score!r}; a calibration maps finite numbers only")
        if self.a is not None and self.b is not None:
            return _sigmoid(self.a * score + self.b)
        return _interpolate(self.x, self.y, score)

    @property
    def lowest(self) -> float:
        """The least confidence that a score in [0, 1] can get."""
        return self.apply(0.0)

    @property
    def highest(self) -> float:
        """The greatest confidence that a score in [0, 1] can get; a threshold above it never fires."""
        return self.apply(1.0)


class Calibration(Curve):
    """A curve with where it comes from and how good it is on rows that it was not fitted on.

    `by` and `signal` name the confidence method whose score is mapped. `accuracy`, `auroc`, `ece` and
    `brier` are measured on `rows` labelled rows, the last three on cross-fitted confidences (each row's
    confidence comes from a curve fitted without its fold). `fitted` is the date, ISO 8601. `scores` are the
    rows' scores, thinned by `thin`, for `cascade monitor` to compare live ones with.
    """

    version: Literal[1] = 1
    by: Literal["labels", "logprob", "agreement"]
    signal: str
    rows: int = Field(ge=1)
    accuracy: float = Field(ge=0.0, le=1.0)
    auroc: float = Field(ge=0.0, le=1.0)
    ece: float = Field(ge=0.0, le=1.0)
    brier: float = Field(ge=0.0, le=1.0)
    data_sha256: Sha256
    model_fingerprint: Sha256
    fitted: str
    scores: tuple[Finite, ...] = ()


def thin(scores: Sequence[float]) -> tuple[float, ...]:
    """Return `scores` in ascending order: all of them, or of many the 501 at evenly spaced ranks.

    Of m kept ones the i-th has rank round(i·(rows − 1) / (m − 1)), from 0; the least and the greatest stay.
    """
    ordered = sorted(scores)
    if len(ordered) > KEPT_SCORES:
        last = len(ordered) - 1
        ordered = [ordered[round(i * last / (KEPT_SCORES - 1))] for i in range(KEPT_SCORES)]
    return tuple(round(score, DECIMALS) for score in ordered)


def fit(method: Method, scores: Sequence[float], correct: Sequence[bool]) -> Curve:
    """Fit a curve by `method` to scores and whether each answer was correct.

    Raises:
        ValueError: there are no rows, the lengths differ, or a score is not finite.
    """
    return fit_isotonic(scores, correct) if method == "isotonic" else fit_platt(scores, correct)


def fit_isotonic(scores: Sequence[float], correct: Sequence[bool]) -> Curve:
    """Fit a nondecreasing step curve by pooling adjacent violators (Zadrozny and Elkan 2002).

    A block of n rows that were all wrong (or all right) does not prove P = 0 (or 1): it gets Laplace's
    rule of succession, 1/(n+2) (or (n+1)/(n+2)), unless its neighbour allows no such step back.

    Raises:
        ValueError: there are no rows, the lengths differ, or a score is not finite.
    """
    import numpy as np
    from scipy.optimize import isotonic_regression

    score, right = _columns(scores, correct)
    x, inverse, count = np.unique(np.round(score, DECIMALS), return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, weights=right) / count
    pooled = np.round(isotonic_regression(mean, weights=count).x, DECIMALS)
    # Blocks of equal probability: each keeps its first and last score as knots.
    starts = np.flatnonzero(np.diff(pooled, prepend=-1.0))
    ends = np.append(starts[1:], len(x)) - 1
    level = pooled[starts].tolist()
    rows = np.add.reduceat(count, starts).tolist()
    if level[0] <= 0.0:
        level[0] = min([1.0 / (rows[0] + 2), *level[1:2]])
    if level[-1] >= 1.0:
        level[-1] = max([(rows[-1] + 1.0) / (rows[-1] + 2), *level[-2:-1]])
    knots: dict[float, float] = {}
    for start, end, value in zip(starts, ends, level, strict=True):
        knots[float(x[start])] = knots[float(x[end])] = round(value, DECIMALS)
    return Curve(method="isotonic", x=tuple(knots), y=tuple(knots.values()))


def fit_platt(scores: Sequence[float], correct: Sequence[bool]) -> Curve:
    """Fit a logistic curve to regularised targets (Platt 1999, with the targets of his section 2.2).

    Right answers count as (n₊+1)/(n₊+2) and wrong ones as 1/(n₋+2), so that few rows never give
    certainty. A slope below 0 is set to 0: a score that falls with correctness carries no promise.

    Raises:
        ValueError: there are no rows, the lengths differ, or a score is not finite.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    score, right = _columns(scores, correct)
    positive = float(right.sum())
    negative = len(right) - positive
    target = np.where(right > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = point[0] * score + point[1]
        residual = expit(z) - target
        value = np.logaddexp(0.0, z) - target * z
        return float(value.mean()), np.array([(residual * score).mean(), residual.mean()])

    start = np.array([0.0, math.log((positive + 1) / (negative + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (-500.0, 500.0)])
    return Curve(method="platt", a=round(float(found.x[0]), DECIMALS), b=round(float(found.x[1]), DECIMALS))


def cross_fit(
    method: Method, scores: Sequence[float], correct: Sequence[bool], *, folds: int = 5, seed: int = 0
) -> list[float]:
    """Return each row's confidence from a curve fitted on the other folds; folds are random by `seed`.

    Raises:
        ValueError: there are fewer rows than folds, the lengths differ, or a score is not finite.
    """
    import numpy as np

    score, right = _columns(scores, correct)
    if len(score) < folds or folds < 2:
        raise ValueError(f"{len(score)} rows in {folds} folds; give at least 2 folds and one row for each")
    fold = np.random.default_rng(seed).permutation(len(score)) % folds
    confidence = [0.0] * len(score)
    for part in range(folds):
        kept = fold != part
        curve = fit(method, score[kept].tolist(), (right[kept] > 0).tolist())
        for row in np.flatnonzero(~kept):
            confidence[row] = curve.apply(float(score[row]))
    return confidence


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration file.

    Raises:
        ConfigError: the file is missing, is not JSON, or is not a valid calibration.
    """
    return read_record(Calibration, path, "calibration", "write it anew with 'cascade calibrate'")


def write_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration file, one field a line; a reader sees the old file or the new one, never a part.

    Raises:
        ConfigError: the file cannot be written.
    """
    fields = calibration.model_dump(mode="json", exclude_none=True)
    names = sorted(
        (name for name in fields if fields[name] != []), key=lambda name: name in ("x", "y", "scores")
    )
    lines = [f"  {json.dumps(name)}: {json.dumps(fields[name])}" for name in names]
    write_whole("{\n" + ",\n".join(lines) + "\n}\n", path, "calibration")


def _interpolate(x: Sequence[float], y: Sequence[float], at: float) -> float:
    right = bisect_right(x, at)
    if right == 0:
        return y[0]
    if right == len(x):
        return y[-1]
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    # Written so that rounding cannot leave the two knots' range.
    return min(y[right], y[right - 1] + share * (y[right] - y[right - 1]))


def _sigmoid(z: float) -> float:
    power = math.exp(-abs(z))
    return min(1.0 - _EDGE, max(_EDGE, (1.0 if z >= 0 else power) / (1.0 + power)))


def _columns(
    scores: Sequence[float], correct: Sequence[bool]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    score, right = np.asarray(scores, dtype=float), np.asarray(correct, dtype=float)
    if score.ndim != 1 or score.shape != right.shape or not len(score):
        raise ValueError(f"{len(scores)} scores and {len(correct)} outcomes; give one of each per row")
    if not np.isfinite(score).all():
        raise ValueError("a score is NaN or infinite; leave out rows without a score")
    return score, right
