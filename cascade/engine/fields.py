"""A text as a flat JSON object: one expert for each field, and how sure each and the whole answer is.

A closed field has a learned head. A copied field has a ranker: every candidate of the text, and "there is
none", gets the score of a linear model on its hashed features, and a softmax over them gives probabilities.
What is no valid value of the field is no candidate, so that every answer satisfies the schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cascade.engine.text_features import BUCKETS, MAX_SPAN, WHOLE, Candidates, TextView
from cascade.errors import ConfigError, ModelError
from cascade.formats.flat_schema import Field, FieldKind, assembled, flat_fields
from cascade.policy.calibrate import Curve

FloatArray = npt.NDArray[np.float32]
VERSION = 1
_LEAST = 1e-6  # probability, where nobody says what rows support
_RAW = Curve(method="platt", a=1.0, b=0.0)
_NONE = "null"  # the label of a closed field without a value


class Scored(NamedTuple):
    """The candidates of a text with their probabilities; the last one is that of "there is none"."""

    candidates: Candidates
    probabilities: npt.NDArray[np.float64]


class FieldAnswer(NamedTuple):
    """The value of a field, None for none, and the calibrated probability that it is right."""

    value: Any
    confidence: float


class Extracted(NamedTuple):
    """What a text says.

    Attributes:
        answer: the object, which satisfies the schema; its JSON is the reply.
        confidence: the calibrated probability that all of it is right.
        fields: name → calibrated probability that this field is right.
    """

    answer: dict[str, Any]
    confidence: float
    fields: dict[str, float]


class ClosedHead(Protocol):
    """What a closed field is answered with; its labels are the JSON of the field's values."""

    @property
    def labels(self) -> Sequence[str]:
        """The labels."""
        ...

    @property
    def size(self) -> int:
        """The dimension of the vectors that it takes."""
        ...

    def answer(self, vector: FloatArray, text: str) -> Any:
        """Return `probabilities` of the labels, in their order, and `confidence` of the best."""
        ...


@dataclass(frozen=True)
class SpanShape:
    """Which runs of words can be a value: of how many tokens at most, with which marks at their ends."""

    longest: int = 1
    edges: str = ""


@dataclass(frozen=True, eq=False)
class Ranker:
    """Chooses the value of a copied field.

    Attributes:
        field: the field.
        shape: which runs of words are looked at.
        weights: of the hashed features, shape (`BUCKETS`,).
        fallback: what a field that must have a value answers where the text offers none.
        curve: from the log-odds of the best value's probability to that of being right.
        least: probabilities are kept that far off 0 and 1: more than the rows can tell is no confidence.
    """

    field: Field
    shape: SpanShape
    weights: FloatArray
    fallback: Any = None
    curve: Curve = _RAW
    least: float = _LEAST

    def scored(self, view: TextView) -> Scored:
        """Return the candidates of a text with their probabilities."""
        found = candidates_of(self.field, self.shape, view)
        weights = self.weights
        inner = np.concatenate([[0.0], np.cumsum(weights[view.inner].sum(1, dtype=np.float64))])
        first = weights[view.first].sum(1, dtype=np.float64)[found.first]
        last = weights[view.last].sum(1, dtype=np.float64)[found.last]
        own = weights[found.extra].sum(1, dtype=np.float64)
        scores = first + last + inner[found.last + 1] - inner[found.first] + own
        scores = np.append(scores, WHOLE * weights[view.whole].sum(dtype=np.float64))
        odds = np.exp(scores - scores.max())
        return Scored(found, odds / odds.sum())

    def best(self, view: TextView) -> tuple[Any, float]:
        """Return the likeliest value, over all places where it stands, and its probability."""
        scored = self.scored(view)
        sums: dict[Any, float] = {}
        for value, probability in zip(scored.candidates.values, scored.probabilities, strict=False):
            sums[value] = sums.get(value, 0.0) + float(probability)
        if self.field.optional:
            sums[None] = float(scored.probabilities[-1])
        if not sums:
            return self.fallback, 0.0
        value = max(sums, key=lambda each: sums[each])
        return value, sums[value]

    def answer(self, view: TextView) -> FieldAnswer:
        """Return the likeliest value of the field in a text."""
        value, probability = self.best(view)
        return FieldAnswer(value, self.curve.apply(log_odds(probability, self.least)))


@dataclass(frozen=True, eq=False)
class Extractor:
    """Answers a text with a flat JSON object.

    Attributes:
        schema: the JSON Schema that every answer satisfies.
        rankers: copied field → its ranker.
        heads: closed field → its head; one with a single value needs none.
        curve: from the log-odds of all fields being right, were they independent, to that of it being so.
        least: as of `Ranker`.
    """

    schema: dict[str, Any]
    rankers: Mapping[str, Ranker]
    heads: Mapping[str, ClosedHead]
    curve: Curve = _RAW
    least: float = _LEAST

    @property
    def size(self) -> int | None:
        """The dimension of the vectors that it takes; None where it takes none, 0 where its heads differ."""
        sizes = {head.size for head in self.heads.values()}
        return None if not sizes else sizes.pop() if len(sizes) == 1 else 0

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields of the schema."""
        return flat_fields(self.schema)

    def answer(self, vector: FloatArray | None, text: str) -> Extracted:
        """Answer one text.

        Args:
            vector: the text's unit vector by the encoder; None will do where there are no heads.
            text: the text.
        """
        view = TextView(text)
        found = {field.name: self._field(field, vector, view) for field in self.fields}
        confidences = {name: each.confidence for name, each in found.items()}
        whole = self.curve.apply(log_odds(math.prod(confidences.values()), self.least))
        values = {name: each.value for name, each in found.items()}
        return Extracted(assembled(self.fields, values), whole, confidences)

    def _field(self, field: Field, vector: FloatArray | None, view: TextView) -> FieldAnswer:
        if field.name in self.rankers:
            return self.rankers[field.name].answer(view)
        if field.name not in self.heads:
            return FieldAnswer(field.values[0], 1.0)
        if vector is None:
            raise ModelError(f"the field {field.name!r} needs the text's vector")
        head = self.heads[field.name]
        answer = head.answer(vector, view.text)
        label = head.labels[int(np.argmax(answer.probabilities))]
        return FieldAnswer(json.loads(label), float(answer.confidence))

    def stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Return settings (plain JSON) and arrays from which `read_extractor` makes the extractor again."""
        rankers: list[dict[str, Any]] = []
        arrays: dict[str, npt.NDArray[Any]] = {}
        for index, (name, ranker) in enumerate(self.rankers.items()):
            used = np.flatnonzero(ranker.weights).astype(np.uint32)
            arrays[f"{index}.buckets"], arrays[f"{index}.weights"] = used, ranker.weights[used]
            curve = ranker.curve.model_dump(mode="json")
            own = {"field": name, "fallback": ranker.fallback, "curve": curve, "least": ranker.least}
            rankers.append(own | {"longest": ranker.shape.longest, "edges": ranker.shape.edges})
        curve = self.curve.model_dump(mode="json")
        return {
            "version": VERSION,
            "schema": json.dumps(self.schema, ensure_ascii=False),  # the order of its properties counts
            "rankers": rankers,
            "curve": curve,
            "least": self.least,
        }, arrays


def read_extractor(
    settings: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], heads: Mapping[str, ClosedHead]
) -> Extractor:
    """Return the extractor that a file holds.

    Raises:
        ModelError: it is of another version, or its parts are missing, broken or do not fit the schema.
    """
    if settings.get("version") != VERSION:
        raise ModelError(f"its fields have version {settings.get('version')!r}, expected {VERSION}")
    try:
        schema = json.loads(settings["schema"])
        fields = {field.name: field for field in flat_fields(schema)}
        rankers = {
            own["field"]: _read_ranker(
                fields[own["field"]], own, arrays[f"{index}.buckets"], arrays[f"{index}.weights"]
            )
            for index, own in enumerate(settings["rankers"])
        }
        curve, least = Curve.model_validate(settings["curve"]), float(settings["least"])
    except (LookupError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(f"its fields are broken ({error!r:.200}); learn it again") from error
    for name, field in fields.items():
        labels = {json.dumps(value) for value in field.values} | ({_NONE} if field.optional else set())
        copied = field.kind is not FieldKind.CLOSED
        if copied != (name in rankers) or (name in heads and not labels.issuperset(heads[name].labels)):
            raise ModelError(f"its field {name!r} does not fit its schema; learn it again")
        if not copied and name not in heads and (len(field.values) > 1 or field.optional):
            raise ModelError(f"its field {name!r} has no head; learn it again")
    return Extractor(schema, rankers, heads, curve, least)


def _read_ranker(
    field: Field, settings: Mapping[str, Any], buckets: npt.NDArray[Any], values: npt.NDArray[Any]
) -> Ranker:
    shape = SpanShape(int(settings["longest"]), str(settings["edges"]))
    if not 1 <= shape.longest <= MAX_SPAN or len(buckets) != len(values) or buckets.dtype.kind != "u":
        raise ModelError(f"its field {field.name!r} is broken; learn it again")
    if (len(buckets) and int(buckets.max()) >= BUCKETS) or not np.isfinite(values).all():
        raise ModelError(f"the weights of its field {field.name!r} are broken; learn it again")
    fallback = settings["fallback"]
    if not field.optional and (fallback is None or not field.takes(fallback)):
        raise ModelError(f"the fallback of its field {field.name!r} is no value of it; learn it again")
    weights = np.zeros(BUCKETS, np.float32)
    weights[buckets] = values
    curve = Curve.model_validate(settings["curve"])
    return Ranker(field, shape, weights, fallback, curve, float(settings["least"]))


def candidates_of(field: Field, shape: SpanShape, view: TextView) -> Candidates:
    """Return what a text offers for `field`: only values that are valid."""
    spans = field.kind is FieldKind.SPAN
    found = view.spans(shape.longest, shape.edges) if spans else view.found(field.kind)
    if not field.bounded:
        return found
    valid = {value: field.takes(value) for value in set(found.values)}
    return found.kept([index for index, value in enumerate(found.values) if valid[value]])


def closed_label(value: Any) -> str:
    """Return the label of a closed field's value, None for none."""
    return json.dumps(value)


def log_odds(probability: float, least: float) -> float:
    """Return the log-odds of a probability, which is kept `least` off 0 and 1."""
    kept = min(max(probability, least), 1 - least)
    return math.log(kept / (1 - kept))
