"""What calls that were not made would have cost, estimated from those of the same model that were.

The cost of a call is fitted to the length of its prompt by least squares. The interval of a sum of unmade
calls has two parts. The fit is uncertain, by the HC3 estimate, which allows for a spread that differs with
length (MacKinnon and White, 1985, https://doi.org/10.1016/0304-4076(85)90158-7); and each call strays from
the fit as the recorded ones did. The quantile is Student's, with Satterthwaite's
degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MIN_CALLS = 3  # recorded calls; fewer say nothing about their own spread
_MIN_FOR_SLOPE = 5  # fewer give a mean, whatever the length
_MAX_LOG = 5.0  # of an interval; wider ones say no more
_Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


class PricedCall(NamedTuple):
    """A recorded call: the UTF-8 bytes of its prompt (None where unknown), and its cost in USD."""

    prompt_bytes: int | None
    cost_usd: float


class CostEstimate(NamedTuple):
    """An estimated cost in USD, with its 95 % interval."""

    cost_usd: float
    low_usd: float
    high_usd: float


@dataclass(frozen=True)
class CostCurve:
    """The cost of a model's calls by the length of their prompts; `calls` is how many it is fitted to."""

    calls: int
    _mean_bytes: float
    _mean_usd: float
    _slope: float  # USD a byte; 0 where the length tells nothing
    _spread: float  # sum of the squared deviations of the lengths
    _offsets: tuple[float, ...]  # of each call's length from the mean
    _errors: tuple[float, ...]  # squared: each call's distance from the fit to the others
    _variance: float  # of a call around the fit
    _relative: float  # the same as a share of the squared fit

    @classmethod
    def fit(cls, recorded: Iterable[PricedCall]) -> CostCurve | None:
        """Return the curve of the recorded calls; None if there are fewer than three.

        Calls whose length is unknown count as of mean length.
        """
        calls = list(recorded)
        if len(calls) < MIN_CALLS:
            return None
        known = [call.prompt_bytes for call in calls if call.prompt_bytes is not None]
        middle = sum(known) / len(known) if known else 0.0
        offsets = [0.0 if call.prompt_bytes is None else call.prompt_bytes - middle for call in calls]
        mean = math.fsum(call.cost_usd for call in calls) / len(calls)
        spread = math.fsum(at * at for at in offsets) if len(calls) >= _MIN_FOR_SLOPE else 0.0
        products = math.fsum(at * call.cost_usd for at, call in zip(offsets, calls, strict=True))
        slope = products / spread if spread else 0.0
        fits = [mean + slope * at for at in offsets]
        residuals = [call.cost_usd - fit for call, fit in zip(calls, fits, strict=True)]
        leverages = [1 / len(calls) + (at * at / spread if spread else 0.0) for at in offsets]
        left_out = [r / max(1 - h, 1e-9) for r, h in zip(residuals, leverages, strict=True)]
        squares, fitted = math.fsum(r * r for r in residuals), math.fsum(fit * fit for fit in fits)
        degrees = len(calls) - (2 if spread else 1)
        return cls(
            calls=len(calls),
            _mean_bytes=middle,
            _mean_usd=mean,
            _slope=slope,
            _spread=spread,
            _offsets=tuple(offsets),
            _errors=tuple(error * error for error in left_out),
            _variance=squares / degrees,
            _relative=squares * len(calls) / (degrees * fitted) if fitted else 0.0,
        )

    def total(self, lengths: Sequence[int | None]) -> CostEstimate:
        """Return the cost of calls with prompts of `lengths` UTF-8 bytes (None: the mean), all together."""
        offsets = [0.0 if length is None else length - self._mean_bytes for length in lengths]
        fits = [max(0.0, self._mean_usd + self._slope * at) for at in offsets]
        cost = math.fsum(fits)
        share = len(offsets) / self.calls
        lean = math.fsum(offsets) / self._spread if self._spread else 0.0
        weights = [(share + lean * at) ** 2 for at in self._offsets]  # of each recorded call in the sum
        variance = math.fsum(weight * error for weight, error in zip(weights, self._errors, strict=True))
        variance += math.fsum(max(self._variance, self._relative * fit * fit) for fit in fits)
        reach = student(self._degrees(weights)) * math.sqrt(variance)
        if cost == 0.0:
            return CostEstimate(0.0, 0.0, reach)
        # Costs are skewed: more often far above than far below.
        factor = math.exp(min(reach / cost, _MAX_LOG))
        return CostEstimate(cost, cost / factor, cost * factor)

    def _degrees(self, weights: Sequence[float]) -> int:
        """Return the degrees of freedom: fewer where a few calls carry the estimate (Satterthwaite)."""
        squares = math.fsum(weight * weight for weight in weights)
        effective = math.fsum(weights) ** 2 / squares if squares else self.calls
        return max(1, int(effective) - (2 if self._spread else 1))


def student(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's distribution with `degrees` (≥ 1) of freedom.

    By its expansion around the normal quantile (Abramowitz and Stegun 26.7.5), off by less than 0.3 % from
    three degrees on; one and two have closed forms.
    """
    if degrees == 1:
        return math.tan(math.pi * 0.475)
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z, n = _Z, degrees
    terms = (
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4),
    )
    return z + sum(terms)
