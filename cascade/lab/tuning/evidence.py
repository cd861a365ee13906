"""What can be known once some models have answered, as columns for a learned score.

Numbers that take many values also get their excess over two knots, so that a score need not be linear in them
(linear splines). Each column is a `Term` of the score to be, whose weight is still to be fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascade.policy.artifact import VOTE_NAMES, Feature, Term
from cascade.policy.features import SHAPES, Features, term_values
from cascade.policy.table import Column, ModelOutcomes, Outcomes, Rows

Matrix = NDArray[np.float64]
LEAST_SPREAD = 1e-6  # a column that varies less tells nothing
_ROWS_PER_FEATURE = 20  # the usual rule for logistic regression; fewer overfit
_FEWEST = 1
_KNOTS = (1 / 3, 2 / 3)  # quantiles of the fitting rows
_LEAST_VALUES, _LEAST_ROWS = 10, 300  # different values, and rows, for a number to get knots
_LONG = 60.0  # characters; answers shorter than this on average have few shapes worth a feature
_OF_SHORT = ("chars", "numbers", "symbols")
_OF_PROMPTS = ("chars", "numbers")


def stage_features(outcomes: Outcomes, asked: Sequence[str]) -> list[Feature]:
    """Return what can be known once the models `asked` have answered, the most telling first.

    The last of `asked` is being judged: how far the others answered the same, then what its check, its
    signals and its text say, then the prompt, then the checks of the others. More than that (the signals of
    the others, say) overfits: on recorded tables it lost more than it told.
    """
    *others, judged = asked
    spoken = [name for name in asked if outcomes.models[name].texts and _whole(outcomes.models[name])]
    found: list[Feature] = []
    if judged in spoken:
        found += _agreement(judged, [name for name in others if name in spoken])
    found.append(Feature(kind="confidence", model=judged))
    found += [Feature(kind="signal", model=judged, name=name) for name in outcomes.models[judged].signals]
    if judged in spoken:
        lengths = [len(text or "") for text in outcomes.models[judged].texts]
        shapes = tuple(SHAPES) if np.mean(lengths) >= _LONG else _OF_SHORT
        found += [Feature(kind="text", model=judged, name=shape) for shape in shapes]
    if all(prompt is not None for prompt in outcomes.prompts):
        found += [Feature(kind="prompt", name=name) for name in _OF_PROMPTS]
    return found + [Feature(kind="confidence", model=name) for name in reversed(others)]


def _agreement(judged: str, others: Sequence[str]) -> list[Feature]:
    """One other model agrees or not; several vote."""
    if len(others) == 1:
        return [Feature(kind="agreement", model=judged, other=others[0])]
    kinds = VOTE_NAMES if others else ()
    return [Feature(kind="votes", model=judged, among=tuple(others), name=name) for name in kinds]


def _whole(model: ModelOutcomes) -> bool:
    """Whether each answer of `model` has a text; a failed call has no answer."""
    return all(text is not None for text, bad in zip(model.texts, model.failed, strict=True) if not bad)


def stage_terms(features: Features, outcomes: Outcomes, asked: Sequence[str], rows: Rows) -> list[Term]:
    """Return the terms that all of `rows` have and that differ there, at most as many features as fit."""
    terms: list[Term] = []
    kept = 0
    for feature in stage_features(outcomes, asked):
        column = features.column(feature)[rows]
        if not np.isfinite(column).all() or column.std() <= LEAST_SPREAD:
            continue
        kept += 1
        if kept > max(_FEWEST, len(rows) // _ROWS_PER_FEATURE):
            break
        terms += [_standard(features, rows, feature, above) for above in (None, *_knots(column))]
    return [term for term in terms if term.scale > LEAST_SPREAD]


def _knots(column: Column) -> list[float]:
    values = np.unique(column)
    if len(values) < _LEAST_VALUES or len(column) < _LEAST_ROWS:
        return []
    return [float(knot) for knot in np.unique(np.quantile(column, _KNOTS)) if values[0] < knot < values[-1]]


def _standard(features: Features, rows: Rows, feature: Feature, above: float | None) -> Term:
    """Return a term of weight 1 with mean 0 and standard deviation 1 over `rows`."""
    plain = Term(feature=feature, weight=1.0, above=above)
    column = term_values(plain, features)[rows]
    scale = max(float(column.std()), LEAST_SPREAD)
    return plain.model_copy(update={"mean": float(column.mean()), "scale": scale})


def design(terms: Sequence[Term], features: Features, rows: Rows) -> Matrix:
    """Return rows × (1 + terms), a column of ones first."""
    columns = [(term_values(term, features)[rows] - term.mean) / term.scale for term in terms]
    return np.column_stack([np.ones(len(rows)), *columns])
