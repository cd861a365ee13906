"""What to tell a user about a model or a calibration that is worth nothing, with the evidence for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from cascade.confidence.same import normalise
from cascade.lab.evaluation.metrics import Column, Figure, figure, resampled
from cascade.policy.table import ModelOutcomes

MIN_ROWS = 10  # fewer say nothing about what a model always answers
_CONSTANT = 0.95  # share of one answer from which a model is said to give no other


def brier_change(calibrated: ArrayLike, raw: ArrayLike, correct: ArrayLike, *, seed: int = 0) -> Figure:
    """Return by how much a calibration changes the Brier score, with a 95 % bootstrap interval over rows.

    The difference is paired: each row is judged by both. Below 0 the calibration is better.

    Args:
        calibrated: P(correct) of each row, from a map that was not fitted on it.
        raw: its raw score, read as a probability.
        correct: 1 where the answer was right, 0 where it was wrong, or a grade between.
        seed: seed of the bootstrap.
    """
    right = np.asarray(correct, dtype=float)
    change = (np.asarray(calibrated, dtype=float) - right) ** 2 - (np.asarray(raw, dtype=float) - right) ** 2
    return figure(lambda means: means["change"], resampled({"change": change}, seed=seed))


def worse_than_raw(change: Figure, rows: str) -> str | None:
    """Return the remark on a calibration whose Brier score on `rows` is above the raw score's, or None."""
    if not change.value > 0:
        return None
    chance = "which may be chance" if change.low <= 0 else "more than chance explains"
    return (
        f"the calibrated confidence is worse than the raw score on {rows}: its Brier score is "
        f"{change.value:.4f} higher (95 % interval {change.low:.4f} to {change.high:.4f}), {chance}"
    )


def no_better_than_one_answer(
    answers: Sequence[str], labels: Sequence[str], correct: Sequence[float], *, seed: int = 0
) -> str | None:
    """Return the remark on a model that always says the same, or that is right no more often than that.

    Args:
        answers: what it answered.
        labels: the right answers.
        correct: how right each answer was, 0 to 1.
        seed: seed of the bootstrap.
    """
    rows = len(answers)
    keys = [normalise(label) for label in labels]
    classes = Counter(keys)
    if rows < MIN_ROWS or len(classes) < 2:
        return None
    said, count = Counter(map(normalise, answers)).most_common(1)[0]
    usual, most = classes.most_common(1)[0]
    share = f"'{labels[keys.index(usual)]}', the most frequent label, would be right on {most} of {rows} rows"
    if count >= _CONSTANT * rows and most < _CONSTANT * rows:
        return f"answers '{said}' to {count} of {rows} rows, whatever they ask; always answering {share}"
    gain = np.asarray(correct, dtype=float) - [key == usual for key in keys]
    change = figure(lambda means: means["gain"], resampled({"gain": gain}, seed=seed))
    if change.value > 0:
        return None
    interval = f"95 % interval of the difference {change.low:.1%} to {change.high:.1%}"
    return f"is right on {sum(correct):g} of {rows} rows; always answering {share} ({interval})"


def table_remarks(
    models: Mapping[str, ModelOutcomes], labels: Sequence[str], *, seed: int = 0
) -> Iterator[str]:
    """Yield the remarks on each model of an outcome table.

    Args:
        models: the models by name.
        labels: the right answer of each row, '' where it is unknown; empty if none is known.
        seed: seed of the bootstraps.
    """
    for name, model in models.items():
        known = [row for row, text in enumerate(model.texts) if labels and labels[row] and text is not None]
        known = [row for row in known if not np.isnan(model.quality[row])]
        answers, right = [model.texts[row] or "" for row in known], model.quality[known].tolist()
        same = no_better_than_one_answer(answers, [labels[row] for row in known], right, seed=seed)
        if same:
            yield f"{name} {same}"
        raw = _raw_score(model)
        worse = None if raw is None else worse_than_raw(_change(model, raw, seed), "these rows")
        if worse:
            yield f"{name}: {worse}"


def _change(model: ModelOutcomes, raw: Column, seed: int) -> Figure:
    usable = ~np.isnan(raw) & ~np.isnan(model.confidence) & ~np.isnan(model.quality)
    if usable.sum() < MIN_ROWS:
        return Figure(np.nan, np.nan, np.nan)
    return brier_change(model.confidence[usable], raw[usable], model.quality[usable], seed=seed)


def _raw_score(model: ModelOutcomes) -> Column | None:
    """Return the signal that the reported confidences are a calibration of, if there is one.

    A table does not say which. It is the signal in [0, 1] that differs from the confidence, and of which the
    confidence is a nondecreasing function.
    """
    for signal in model.signals.values():
        both = ~np.isnan(signal) & ~np.isnan(model.confidence)
        score, confidence = signal[both], model.confidence[both]
        if len(score) < MIN_ROWS or score.min() < 0 or score.max() > 1 or np.allclose(score, confidence):
            continue
        order = np.lexsort((confidence, score))
        score, confidence = score[order], confidence[order]
        same = np.diff(score) == 0
        if (np.diff(confidence) >= 0).all() and (np.diff(confidence)[same] == 0).all():
            return signal
    return None
