"""What is known once some models have answered, as columns for a learned score.

Features with many values also get their excess over two knots, so that a score need not be linear in them
(linear splines). Each column is a `Term` of the future score; its weight is still to be fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascade.policy.artifact import VOTE_NAMES, Feature, Term
from cascade.policy.features import SHAPES, Features, term_values
from cascade.policy.table import Column, ModelOutcomes, Outcomes, Rows

Matrix = NDArray[np.float64]
MIN_SPREAD = 1e-6  # a column that varies less is useless
_ROWS_PER_FEATURE = 20  # the usual rule for logistic regression; fewer overfit
_MIN_FEATURES = 1
_KNOTS = (1 / 3, 2 / 3)  # quantiles of the fitting rows
_MIN_VALUES, _MIN_ROWS = 10, 300  # distinct values and rows that a feature needs to get knots
_LONG_ANSWER = 60.0  # mean characters; few shapes of shorter answers are worth a feature
_SHAPES_OF_SHORT = ("chars", "numbers", "symbols")
_SHAPES_OF_PROMPTS = ("chars", "numbers")


def stage_features(outcomes: Outcomes, asked: Sequence[str]) -> list[Feature]:
    """Return the features that exist once the models `asked` have answered, the most telling first.

    The last of `asked` is judged: by how far the others agree with it, then by its check, its signals and its
    text, then by the prompt, then by the checks of the others. More features (such as the signals of the
    others) overfit: on recorded tables they did more harm than good.
    """
    *others, judged = asked
    with_text = [name for name in asked if outcomes.models[name].texts and _has_texts(outcomes.models[name])]
    features: list[Feature] = []
    if judged in with_text:
        features += _agreement(judged, [name for name in others if name in with_text])
    features.append(Feature(kind="confidence", model=judged))
    features += [Feature(kind="signal", model=judged, name=name) for name in outcomes.models[judged].signals]
    if judged in with_text:
        lengths = [len(text or "") for text in outcomes.models[judged].texts]
        shapes = tuple(SHAPES) if np.mean(lengths) >= _LONG_ANSWER else _SHAPES_OF_SHORT
        features += [Feature(kind="text", model=judged, name=shape) for shape in shapes]
    if all(prompt is not None for prompt in outcomes.prompts):
        features += [Feature(kind="prompt", name=name) for name in _SHAPES_OF_PROMPTS]
    return features + [Feature(kind="confidence", model=name) for name in reversed(others)]


def _agreement(judged: str, others: Sequence[str]) -> list[Feature]:
    """Return features of agreement: one other model agrees or not, several vote."""
    if len(others) == 1:
        return [Feature(kind="agreement", model=judged, other=others[0])]
    kinds = VOTE_NAMES if others else ()
    return [Feature(kind="votes", model=judged, among=tuple(others), name=name) for name in kinds]


def _has_texts(model: ModelOutcomes) -> bool:
    """Return whether every answer of `model` has a text; failed calls have no answer."""
    texts = zip(model.texts, model.failed, strict=True)
    return all(text is not None for text, failed in texts if not failed)


def stage_terms(features: Features, outcomes: Outcomes, asked: Sequence[str], rows: Rows) -> list[Term]:
    """Return the terms that exist and vary on `rows`, for as many features as the rows support."""
    terms: list[Term] = []
    kept = 0
    for feature in stage_features(outcomes, asked):
        column = features.column(feature)[rows]
        if not np.isfinite(column).all() or column.std() <= MIN_SPREAD:
            continue
        kept += 1
        if kept > max(_MIN_FEATURES, len(rows) // _ROWS_PER_FEATURE):
            break
        terms += [_standard(features, rows, feature, above) for above in (None, *_knots(column))]
    return [term for term in terms if term.scale > MIN_SPREAD]


def _knots(column: Column) -> list[float]:
    values = np.unique(column)
    if len(values) < _MIN_VALUES or len(column) < _MIN_ROWS:
        return []
    return [float(knot) for knot in np.unique(np.quantile(column, _KNOTS)) if values[0] < knot < values[-1]]


def _standard(features: Features, rows: Rows, feature: Feature, above: float | None) -> Term:
    """Return a term of weight 1 with mean 0 and standard deviation 1 over `rows`."""
    plain = Term(feature=feature, weight=1.0, above=above)
    column = term_values(plain, features)[rows]
    scale = max(float(column.std()), MIN_SPREAD)
    return plain.model_copy(update={"mean": float(column.mean()), "scale": scale})


def design(terms: Sequence[Term], features: Features, rows: Rows) -> Matrix:
    """Return the design matrix, shape (rows, 1 + terms); its first column is ones."""
    columns = [(term_values(term, features)[rows] - term.mean) / term.scale for term in terms]
    return np.column_stack([np.ones(len(rows)), *columns])
