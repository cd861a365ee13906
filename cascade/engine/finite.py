"""Logits that are not numbers: llama.cpp reports success for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cascade.errors import ModelError

NOT_FINITE = "NaN or infinity in its output; the weights are broken, download or export it again"


def check_finite(rows: npt.NDArray[np.float32]) -> None:
    """Raise ModelError if a logit is NaN or infinite (`max` and `min` pass a NaN on)."""
    if not (np.isfinite(rows.max()) and np.isfinite(rows.min())):
        raise ModelError(NOT_FINITE)
