"""Fitting one expert for each field of a flat schema, and the confidence of each and of the whole answer.

Confidence is calibrated on cross-fitted scores: each row is answered by experts that have not seen its group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.candidates import collapsed
from cascade.engine.fields import (
    ClosedHead,
    Extractor,
    Ranker,
    SpanShape,
    closed_label,
    log_odds,
)
from cascade.engine.text_features import TextView
from cascade.errors import RequestError
from cascade.formats.flat_schema import Field, FieldKind, flat_fields
from cascade.lab.fitting.rank import Offer, fit_weights, offer, span_shape
from cascade.policy.calibrate import DECIMALS, Curve

FOLDS = 5
MIN_COPIED = 0.8  # of the values of a field must stand in their texts
_SHOWN = 3

Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class FieldRows(NamedTuple):
    """Texts with their right answers; rows of one group never stand on both sides of a split."""

    texts: Sequence[str]
    answers: Sequence[Mapping[str, Any]]
    groups: npt.NDArray[np.intp]

    def take(self, rows: Sequence[int]) -> FieldRows:
        """Return some of the rows, in the order given."""
        groups = self.groups[np.array(rows, np.intp)]
        return FieldRows([self.texts[row] for row in rows], [self.answers[row] for row in rows], groups)


class FittedField(NamedTuple):
    """An expert, and of each row whether its cross-fitted answer is right, and how sure it is."""

    expert: Any
    correct: Booleans
    confidence: Floats


class FittedFields(NamedTuple):
    """An extractor, and what its cross-fitted answers are worth.

    Attributes:
        extractor: the extractor.
        fields: name → of each row whether the field is right, and its confidence.
        correct: of each row whether the whole answer is right.
        confidence: of each row how sure the whole answer is.
        remarks: what a user should know of the rows.
    """

    extractor: Extractor
    fields: dict[str, tuple[Booleans, Floats]]
    correct: Booleans
    confidence: Floats
    remarks: tuple[str, ...]


FitClosed = Callable[[Sequence[str]], FittedField]  # labels of the rows → a head


def fit_fields(
    schema: dict[str, Any],
    rows: FieldRows,
    fit_closed: FitClosed,
    *,
    seed: int = 0,
    report: Callable[[str, float], None] = lambda _, __: None,
) -> FittedFields:
    """Fit an extractor.

    Args:
        schema: a flat JSON Schema.
        rows: the rows; their answers satisfy the schema.
        fit_closed: fits the head of a closed field.
        seed: of the folds.
        report: called with "fitting" and the share of the fields that is done.

    Raises:
        ConfigError: the schema is not flat.
        RequestError: the rows cannot teach a field; the text names it and the fix.
    """
    fields = flat_fields(schema)
    views = [TextView(text) for text in rows.texts]
    folds = _folds(rows.groups, seed)
    fitted: dict[str, FittedField] = {}
    remarks: list[str] = []
    for done, field in enumerate(fields):
        report("fitting", done / len(fields))
        values = [row.get(field.name) for row in rows.answers]
        if field.kind is not FieldKind.CLOSED:
            fitted[field.name] = _fit_copied(field, views, values, folds, remarks)
        elif len(field.values) > 1 or field.optional:
            fitted[field.name] = _fit_closed(field, values, fit_closed, remarks)
    report("fitting", 1.0)
    return _joined(schema, fields, fitted, len(rows.texts), tuple(remarks))


def same_value(one: Any, other: Any) -> bool:
    """Return whether two values of a field are equal: as JSON, with white space as one space."""
    if isinstance(one, str) and isinstance(other, str):
        return collapsed(one) == collapsed(other)
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def fit_curve(scores: Sequence[float], correct: Booleans) -> Curve:
    """Fit a logistic curve to log-odds, with Platt's targets (1999, section 2.2) and a prior at the identity.

    The prior counts as one row. Without it, answers that were all right would make every answer as sure as
    any other, also where the text offers nothing.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    score = np.asarray(scores)
    positive, negative = int(correct.sum()), int((~correct).sum())
    target = np.where(correct, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(point: Floats) -> tuple[float, Floats]:
        z = point[0] * score + point[1]
        residual = expit(z) - target
        away = point - np.array([1.0, 0.0])
        value = (np.logaddexp(0.0, z) - target * z).sum() + 0.5 * (away @ away)
        return float(value), np.array([residual @ score, residual.sum()]) + away

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]
    )
    slope, intercept = (round(float(each), DECIMALS) for each in found.x)
    return Curve(method="platt", a=slope, b=intercept)


def _joined(
    schema: dict[str, Any],
    fields: Sequence[Field],
    fitted: Mapping[str, FittedField],
    rows: int,
    remarks: tuple[str, ...],
) -> FittedFields:
    correct = np.ones(rows, bool)
    for each in fitted.values():
        correct &= each.correct
    least = 1 / (rows + 2)
    products = np.prod([each.confidence for each in fitted.values()], axis=0)
    scores = [log_odds(float(each), least) for each in products]
    curve = fit_curve(scores, correct)
    copied = {field.name for field in fields if field.kind is not FieldKind.CLOSED}
    rankers: dict[str, Ranker] = {name: each.expert for name, each in fitted.items() if name in copied}
    heads: dict[str, ClosedHead] = {name: each.expert for name, each in fitted.items() if name not in copied}
    return FittedFields(
        Extractor(schema, rankers, heads, curve, least),
        {name: (each.correct, each.confidence) for name, each in fitted.items()},
        correct,
        np.array([curve.apply(score) for score in scores]),
        remarks,
    )


def _fit_closed(
    field: Field, values: Sequence[Any], fit_closed: FitClosed, remarks: list[str]
) -> FittedField:
    counts = Counter(closed_label(value) for value in values)
    if len(counts) < 2:
        raise RequestError(
            f"field {field.name!r} is {next(iter(counts))} in every row, so there is nothing to learn; "
            "leave it out of the schema, or add rows with its other values"
        )
    unseen = [label for label in map(closed_label, field.values) if label not in counts]
    if unseen:
        named = ", ".join(unseen[:_SHOWN])
        remarks.append(f"field {field.name!r}: no row has {named}, so that is never answered")
    return fit_closed([closed_label(value) for value in values])


def _fit_copied(
    field: Field,
    views: Sequence[TextView],
    values: Sequence[Any],
    folds: npt.NDArray[np.intp],
    remarks: list[str],
) -> FittedField:
    given = [value for value in values if value is not None]
    if not given:
        raise RequestError(f"field {field.name!r} has no value in any row; leave it out of the schema")
    shape = span_shape(given) if field.kind is FieldKind.SPAN else SpanShape()
    offers = [offer(field, shape, view, value) for view, value in zip(views, values, strict=True)]
    kept = _copied(field, offers, values, remarks)
    common = Counter(given).most_common(1)[0][0]
    fallback = None if field.optional else common
    probability = np.empty(len(views))
    correct = np.empty(len(views), bool)
    for fold in np.unique(folds):
        others = [offers[row] for row in kept if folds[row] != fold]
        ranker = Ranker(field, shape, fit_weights(others), fallback)
        for row in np.flatnonzero(folds == fold).tolist():
            value, probability[row] = ranker.best(views[row])
            correct[row] = same_value(value, values[row])
    least = 1 / (len(views) + 2)
    scores = [log_odds(each, least) for each in probability.tolist()]
    curve = fit_curve(scores, correct)
    weights = fit_weights([offers[row] for row in kept])
    confidence = np.array([curve.apply(score) for score in scores])
    return FittedField(Ranker(field, shape, weights, fallback, curve, least), correct, confidence)


def _copied(field: Field, offers: Sequence[Offer], values: Sequence[Any], remarks: list[str]) -> list[int]:
    """Return the rows whose value stands in their text, or that have none.

    Raises:
        RequestError: too many values do not stand in their texts.
    """
    missing = [row for row, each in enumerate(offers) if each.right[-1] and values[row] is not None]
    given = sum(value is not None for value in values)
    if missing:
        shown = ", ".join(f"row {row + 1}: {values[row]!r:.40}" for row in missing[:_SHOWN])
        text = f"field {field.name!r}: {len(missing)} of {given} values do not stand in their text ({shown})"
        if len(missing) > (1 - MIN_COPIED) * given:
            fix = "values must be copied as they stand, or the schema must list them as an enum"
            raise RequestError(f"{text}; {fix}")
        remarks.append(f"{text}; these cannot be answered")
    gone = set(missing)
    return [row for row in range(len(values)) if row not in gone]


def _folds(groups: npt.NDArray[np.intp], seed: int) -> npt.NDArray[np.intp]:
    """Return each row's fold; groups stay whole."""
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise RequestError("all rows are alike; give rows with different texts")
    place = np.random.default_rng(seed).permutation(len(names)) % min(FOLDS, len(names))
    return np.asarray(place[member], dtype=np.intp)
