"""Heads of closed fields: the same heads as those of labels, on vectors that all fields of a text share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cascade.lab.fitting import fit
from cascade.lab.fitting.fit_fields import FittedField


def closed_fitter(
    texts: Sequence[str],
    vectors: npt.NDArray[np.float32],
    groups: npt.NDArray[np.intp],
    *,
    seed: int = 0,
    deadline: Callable[[], float] | None = None,
) -> Callable[[Sequence[str]], FittedField]:
    """Return what fits the head of a closed field to the labels of its rows.

    Args:
        texts: the rows' texts.
        vectors: their unit vectors by the encoder, shape (rows, dimensions).
        groups: a number for each row's group.
        seed: of the folds.
        deadline: returns the seconds that are left.
    """

    def fitted(labels: Sequence[str]) -> FittedField:
        rows = fit.Rows(texts, labels, groups)
        made = fit.fit_head(rows, vectors, seed=seed, deadline=deadline)
        names = np.array(made.head.labels, dtype=object)
        correct = names[made.scores.predicted] == np.array(labels, dtype=object)
        return FittedField(made.head, correct.astype(bool), made.scores.confidence)

    return fitted
