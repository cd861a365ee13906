"""The size `head`: a frozen encoder and a head on its vectors, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascade.engine.head import Head
from cascade.formats.expert_file import write_expert
from cascade.lab.fitting.fit import FittedHead, Scores, fit_head
from cascade.lab.fitting.fit import Rows as FitRows
from cascade.lab.learning.card import outside_label, versions
from cascade.lab.learning.session import Session
from cascade.lab.learning.sizes import Answers, Material, Rows
from cascade.lab.learning.store import Store
from cascade.lab.learning.vectors import Vectors

_REPORT_EVERY = 64  # texts


class HeadExpert:
    """A head on an encoder's vectors, trained and not yet written (`sizes.Trained`)."""

    confidence: Mapping[str, str] = {"by": "labels", "signal": "expert"}

    def __init__(self, size: str, fitted: FittedHead, vectors: Vectors) -> None:
        """Take what was fitted.

        Args:
            size: the name of the size.
            fitted: the head with its cross-fitted scores.
            vectors: of the encoder that it stands on.
        """
        self.size = size
        self.head: Head = fitted.head
        self.labels: Sequence[str] = fitted.head.labels
        self.notes: Mapping[str, Any] = fitted.notes
        self.scores = Answers(fitted.scores.predicted, fitted.scores.confidence, fitted.scores.known)
        self.rows = fitted.calibrated
        self._vectors = vectors

    def answers(self, texts: Sequence[str], session: Session) -> Answers:
        """Answer texts as the expert will at run time, through llama.cpp."""
        if not texts:
            nothing = np.zeros(0)
            return Answers(nothing.astype(np.intp), nothing, nothing, nothing)
        outside = outside_label(self.labels)
        within = np.array([label != outside for label in self.labels])
        vectors, rows = self._vectors.of(texts, to_the_end=True), []
        for index, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
            answer = self.head.answer(vector, text)
            chances = answer.probabilities
            rows.append(
                (int(chances.argmax()), answer.confidence, answer.known, float(chances[within].max()))
            )
            if index % _REPORT_EVERY == 0:
                session.report("measuring", index / len(texts))
        predicted, confidence, known, inside = (np.array(column) for column in zip(*rows, strict=True))
        return Answers(predicted.astype(np.intp), confidence, known, inside)

    def write(self, out: Path, task: str, card: Mapping[str, Any]) -> None:
        """Write the encoder's file with the head and the card inside."""
        write_expert(
            self._vectors.encoder, {task: self.head}, {task: dict(card)}, out, self._vectors.max_tokens
        )


def train(rows: Rows, material: Material) -> HeadExpert:
    """Fit a head on the vectors of the bundled encoder; an interrupted call finds it fitted again."""
    session, store, seed = material.session, material.store, material.settings.seed
    vectors = material.vectors.of(rows.texts)
    key = (list(rows.texts), list(rows.labels), rows.groups.tolist(), seed, versions())
    fitted = _kept(store, key)
    if fitted is None:
        own = FitRows(rows.texts, rows.labels, rows.groups)
        fitted = fit_head(own, vectors, seed=seed, deadline=session.seconds_left, report=session.report)
        if session.cut_short != "stopped":
            _keep(store, key, fitted)
    return HeadExpert("head", fitted, material.vectors)


def _keep(store: Store, key: tuple[object, ...], fitted: FittedHead) -> None:
    head = fitted.head
    arrays = {f"head.{name}": array for name, array in head.arrays.items()}
    scores = {f"scores.{name}": column for name, column in fitted.scores._asdict().items()}
    facts = {"labels": list(head.labels), "settings": head.settings, "notes": fitted.notes}
    store.save("fit", *key, arrays=arrays | scores | {"calibrated": fitted.calibrated}, facts=facts)


def _kept(store: Store, key: tuple[object, ...]) -> FittedHead | None:
    kept = store.load("fit", *key)
    if kept is None:
        return None
    arrays, facts = kept

    def part(prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    head = Head.read(facts["labels"], facts["settings"], part("head."))
    return FittedHead(head, Scores(**part("scores.")), arrays["calibrated"], facts["notes"])
