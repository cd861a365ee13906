"""From rows to a local expert: what `cascade learn` does, with the vectors kept from night to night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from traffic import Asked

from cascade.config.references import bundled_path
from cascade.formats.expert_file import write_expert
from cascade.lab.fitting.embed import embed_texts
from cascade.lab.fitting.fit import Rows, fit_head
from cascade.lab.learning.certify import Graded, judge
from cascade.lab.monitoring.drift import Reference
from cascade.policy.artifact import Goal
from cascade.policy.calibrate import thin

TASK, MAX_TOKENS = "requests", 64
MIN_ROWS = 2  # that a label needs


@dataclass(frozen=True)
class Student:
    """A local expert, as a graph asks it.

    Attributes:
        name: its name in the graph.
        model: its settings there.
        confidence: how its answers are checked.
        accept: the confidence from which on they count.
        rows: how many rows it learned from.
        certified: whether held-out rows certify the threshold.
        reference: its scores on the held-out rows, which live scores are compared with.
    """

    name: str
    model: dict[str, Any]
    confidence: dict[str, str]
    accept: float
    rows: int
    certified: bool
    reference: Reference


@dataclass
class School:
    """Makes students in a folder; each text is embedded once."""

    folder: Path
    max_risk: float
    delta: float
    seed: int = 0
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def learn(self, name: str, rows: Sequence[Asked], held_out: Sequence[Asked]) -> Student:
        """Fit a head on `rows`, and choose the threshold that `held_out`, a fair sample, certifies."""
        counts: dict[str, int] = {}
        for row in rows:
            counts[row.label] = counts.get(row.label, 0) + 1
        rows = [row for row in rows if counts[row.label] >= MIN_ROWS]
        texts, labels = [row.text for row in rows], [row.label for row in rows]
        groups = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)[1]
        fitted = fit_head(Rows(texts, labels, groups), self._embed(texts), seed=self.seed)
        names, head = np.asarray(fitted.head.labels, dtype=object), fitted.head
        right = names[fitted.scores.predicted] == np.asarray(labels, dtype=object)[fitted.calibrated]
        answers = [
            head.answer(vector, row.text)
            for vector, row in zip(self._embed([row.text for row in held_out]), held_out, strict=True)
        ]
        tested = [
            names[answer.probabilities.argmax()] == row.label
            for answer, row in zip(answers, held_out, strict=True)
        ]
        sure = [answer.confidence for answer in answers]
        verdict = judge(
            Graded(fitted.scores.confidence, right),
            Graded(np.array(sure), np.array(tested, dtype=bool)),
            Goal(kind="max_risk", value=self.max_risk, delta=self.delta),
        )
        card = {"rows": len(rows), "held_out": len(held_out), "accept": verdict.accept}
        file = self.folder / f"{name}.gguf"
        write_expert(bundled_path("encoder"), {TASK: head}, {TASK: card}, file, MAX_TOKENS)
        return Student(
            name=name,
            model={"kind": "llamacpp", "tier": "haiku", "path": file.name, "task": TASK},
            confidence={"by": "labels", "signal": "expert"},
            accept=verdict.accept,
            rows=len(rows),
            certified=verdict.certificate is not None,
            reference=Reference(by="labels", signal="expert", rows=len(sure), scores=thin(sure)),
        )

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        if new:
            made = embed_texts(bundled_path("encoder"), new, MAX_TOKENS, lambda _, __: None)
            self.vectors |= dict(zip(new, made, strict=True))
        return np.stack([self.vectors[text] for text in texts]) if texts else np.zeros((0, 384), np.float32)
