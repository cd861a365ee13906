"""Two experts in a row: thresholds from val, figures from test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.lab.training.datasets import OOS

RISK = 0.01
OUTSIDE = 0.02  # a tier; two tiers together stay under 5 %


@dataclass(frozen=True, slots=True)
class Answers:
    """Per row: true label, answer, its probability, the best in-scope probability, the distribution."""

    truth: Any
    said: Any
    trust: Any
    inside: Any
    shares: Any


def threshold(found: Answers) -> float:
    """Return the lowest confidence whose accepted rows keep the risk and the out-of-scope share."""
    outside = found.truth == OOS
    for value in np.unique(np.round(found.trust, 4)):
        taken = (found.trust >= value) & (found.said != OOS)
        wrong = taken & ~outside & (found.said != found.truth)
        if not taken.any():
            break
        safe = wrong.sum() <= RISK * (taken & ~outside).sum()
        if safe and (taken & outside).sum() <= OUTSIDE * outside.sum():
            return float(value)
    return 1.0


def cascade_on_test(first: tuple[Answers, Answers], second: tuple[Answers, Answers]) -> dict[str, Any]:
    """Return what two tiers answer on test with the thresholds of val; each argument is (val, test)."""
    low, high = threshold(first[0]), threshold(second[0])
    one, two = first[1], second[1]
    by_first = (one.trust >= low) & (one.said != OOS)
    by_second = ~by_first & (two.trust >= high) & (two.said != OOS)
    said = np.where(by_first, one.said, two.said)
    taken, known = by_first | by_second, one.truth != OOS
    result = {
        "thresholds": [low, high],
        "answered": float(taken[known].mean()),
        "first_share": float(by_first[known].mean()),
        "accuracy_answered": float((said == one.truth)[known & taken].mean()),
    }
    if not known.all():
        result["oos_accepted"] = float(taken[~known].mean())
    return result
