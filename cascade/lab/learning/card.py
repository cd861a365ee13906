"""The card of a learned expert: what it was made from, what it is worth, and what is not known."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade import __version__
from cascade.lab.evaluation.metrics import auroc, bootstrap, coverage_at_risk, ece
from cascade.lab.learning.certify import Graded, Verdict
from cascade.lab.learning.sizes import Answers
from cascade.policy.intervals import wilson

_PAIRS = 10  # of labels that are confused most
_DIGITS = 4
_PACKAGES = ("llama-cpp-python", "numpy", "scikit-learn", "torch")
_RESAMPLES = 300
# How people call a label that means "none of the others".
_OUTSIDE = frozenset({"oos", "outofscope", "outofdomain", "ood", "none", "noneoftheabove", "noneofthese"})


@dataclass(frozen=True)
class Answered:
    """Rows with what the expert said of each, from a fit without it.

    Attributes:
        texts: the rows' texts.
        truth: each row's label.
        answers: what the expert said.
        slices: each row's value of the slice column; None without one.
        counted: one row of each family of near-duplicates.
    """

    texts: Sequence[str]
    truth: Sequence[str]
    answers: Answers
    slices: Sequence[str | None] | None
    counted: NDArray[np.intp]

    def correct(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        """Return whether each answer is right."""
        names = np.asarray(labels, dtype=object)
        return np.asarray(names[self.answers.predicted] == np.asarray(self.truth, dtype=object), dtype=bool)

    def graded(self, labels: Sequence[str]) -> Graded:
        """Return the confidences and whether each answer is right, of the rows that count."""
        return Graded(self.answers.confidence[self.counted], self.correct(labels)[self.counted])


def outside_label(labels: Sequence[str]) -> str | None:
    """Return the label that means "none of the others", if one of them is called like that."""
    return next((label for label in labels if _plain(label) in _OUTSIDE), None)


def figures(rows: Answered, labels: Sequence[str], accept: float, risk: float, seed: int) -> dict[str, Any]:
    """Return what answers to rows are worth; None for what these rows cannot tell.

    Args:
        rows: the rows with the answers.
        labels: the expert's labels.
        accept: the threshold of the graph.
        risk: the promised error.
        seed: seed of the bootstrap intervals.
    """
    graded, outside = rows.graded(labels), outside_label(labels)
    confidence, correct = graded.confidence, graded.correct
    accepted = confidence >= accept
    right = int(correct.sum())
    wrong = int((accepted & ~correct).sum())
    result: dict[str, Any] = {
        "rows": len(correct),
        "accuracy": right / len(correct),
        "accuracy_ci": wilson(right, len(correct)),
        "ece": ece(confidence, correct),
        "ece_ci": bootstrap(ece, confidence, correct, resamples=_RESAMPLES, seed=seed),
        "auroc": auroc(confidence, correct),
        "auroc_ci": bootstrap(auroc, confidence, correct, resamples=_RESAMPLES, seed=seed),
        "coverage": float(accepted.mean()),
        "wrong_accepted": wrong,
        "risk": wrong / int(accepted.sum()) if accepted.any() else None,
        "risk_ci": wilson(wrong, int(accepted.sum())) if accepted.any() else None,
        "coverage_at_risk": coverage_at_risk(confidence, correct, risk),
    }
    return rounded(result | _known(rows, outside))


def _known(rows: Answered, outside: str | None) -> dict[str, Any]:
    """Return how well rows of the out-of-scope label are told from the others; None: not measured."""
    if outside is None:
        return {"known_auroc": None, "known_note": "not measured: no label means out of scope"}
    inside = np.array([label != outside for label in rows.truth])[rows.counted]
    score = rows.answers.known if rows.answers.inside is None else rows.answers.inside
    by = "the score of unknown inputs" if rows.answers.inside is None else "the best other label"
    value = auroc(score[rows.counted], inside)
    note = f"{int((~inside).sum())} rows labelled {outside!r} against the others, by {by}"
    return {"known_auroc": value, "known_note": note}


def confusions(parts: Sequence[Answered], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pairs of labels that are confused most, with how often."""
    pairs: Counter[tuple[str, str]] = Counter()
    for part in parts:
        given = [labels[index] for index in part.answers.predicted.tolist()]
        pairs.update(pair for pair in zip(part.truth, given, strict=True) if pair[0] != pair[1])
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [{"label": a, "answered": b, "rows": count} for (a, b), count in ordered[:_PAIRS]]


def slice_table(parts: Sequence[Answered], labels: Sequence[str], accept: float) -> list[dict[str, Any]]:
    """Return accuracy and risk for each value of the slice column, the largest first."""
    columns = [
        (value if value is not None else "", bool(right), confidence >= accept)
        for part in parts
        if part.slices is not None
        for value, right, confidence in zip(
            part.slices, part.correct(labels), part.answers.confidence, strict=True
        )
    ]
    table = []
    for value, count in Counter(value for value, _, _ in columns).most_common():
        own = [(right, taken) for name, right, taken in columns if name == value]
        right, taken = sum(right for right, _ in own), sum(taken for _, taken in own)
        wrong = sum(taken and not right for right, taken in own)
        table.append(
            {
                "value": value, "rows": count, "accuracy": right / count, "accuracy_ci": wilson(right, count),
                "coverage": taken / count, "wrong_accepted": wrong,
            }
        )  # fmt: skip
    return [rounded(row) for row in table]


def promise(verdict: Verdict, max_risk: float, delta: float) -> dict[str, Any]:
    """Return the promise of a card: its certificate, or why there is none."""
    made = verdict.certificate
    refusal = verdict.refusal
    return rounded(
        {
            "max_risk": max_risk,
            "delta": delta,
            "certificate": None if made is None else made.model_dump(mode="json"),
            "refused": None if refusal is None else refusal.reason,
            "rows_needed": None if refusal is None else refusal.rows,
        }
    )


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    found = {"cascade": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def rounded(value: dict[str, Any]) -> dict[str, Any]:
    """Return plain JSON with short numbers; what is NaN, because the rows cannot tell it, is None."""
    return {key: _short(item) for key, item in value.items()}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_short(item) for item in value]
        return None if items and all(item is None for item in items) else items
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return None if value != value else round(value, _DIGITS)
    return value


def _plain(label: str) -> str:
    return "".join(character for character in label.casefold() if character.isalnum())
