"""What rows that a certificate never saw say about its promise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.errors import ConfigError
from cascade.policy.apply import Decisions
from cascade.policy.artifact import Certificate, Policy
from cascade.policy.table import Outcomes


def compare(promise: Certificate, policy: Policy, table: Outcomes, decisions: Decisions) -> dict[str, Any]:
    """Compare a promise with the rows: it `held` if the observed error, or loss, is at most alpha.

    `p_value` is the chance of so many errors or more if the true risk were alpha: where it is not small, a
    promise that did not hold here may yet be true. Where nothing is accepted, no promise about it is broken.

    Raises:
        ConfigError: the certificate is of a stage that the policy does not have.
    """
    answered = decisions.answered_by >= 0
    right = np.where(answered, decisions.quality, 0.0)
    if promise.kind == "max_risk":
        if promise.stage not in policy.chain:
            known = ", ".join(policy.chain)
            raise ConfigError(f"certificate of unknown stage {promise.stage!r}; known: {known}")
        here = decisions.answered_by == policy.chain.index(promise.stage)
        wrong = 1.0 - decisions.quality[here]
    else:
        top = table.models[policy.chain[-1]].credit
        here = ~np.isnan(top)
        wrong = top[here] - right[here]
    observed = float(wrong.mean()) if len(wrong) else None
    return {
        **promise.model_dump(mode="json", include={"stage", "kind", "alpha", "delta", "bound"}),
        "held": observed is None or observed <= promise.alpha + 1e-12,
        "observed": observed,
        "observed_rows": len(wrong),
        "p_value": _chance(wrong, promise),
    }


def _chance(wrong: NDArray[np.float64], promise: Certificate) -> float | None:
    if promise.kind != "max_risk" or not len(wrong) or not np.isin(wrong, (0.0, 1.0)).all():
        return None
    from scipy.stats import binom

    return float(binom.sf(wrong.sum() - 1, len(wrong), promise.alpha))
