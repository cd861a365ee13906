"""A gate that asks a small model with a closed label set."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cascade.models.base import Reply


def score(candidates: Sequence[str], reply: Reply | None) -> dict[str, float] | None:
    """Return the candidates' probabilities, scaled to sum to 1.

    None if there is no label distribution, a candidate is not among its labels, or its numbers are none.
    """
    if reply is None or reply.labels is None or not candidates:
        return None
    if any(name not in reply.labels for name in candidates):
        return None
    found = {name: reply.labels[name] for name in candidates}
    total = sum(found.values())
    if not all(value >= 0.0 for value in found.values()) or not 0.0 < total < math.inf:
        return None
    return {name: value / total for name, value in found.items()}
