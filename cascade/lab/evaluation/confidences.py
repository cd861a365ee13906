"""How good each confidence is: the policy's own scores, and what the models reported."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from cascade.lab.evaluation import metrics
from cascade.policy.apply import Decisions, curve_values
from cascade.policy.artifact import Policy
from cascade.policy.table import Column, Outcomes, Rows

_MAX_CELLS = 20_000_000  # rows × resamples of one metric: a few seconds
_MIN_RESAMPLES = 100  # of a large table


class ScoredAnswers(NamedTuple):
    """A model's confidences and the quality of the answers that they belong to.

    `by` says whose they are, `policy` or `table`; `rows` are their rows in the table.
    """

    by: str
    confidence: Column
    quality: Column
    is_probability: bool
    rows: Rows

    def within(self, rows: Rows) -> ScoredAnswers:
        """Return the part that belongs to `rows` of the table."""
        kept = np.isin(self.rows, rows)
        return self._replace(
            confidence=self.confidence[kept], quality=self.quality[kept], rows=self.rows[kept]
        )


def confidences(policy: Policy, table: Outcomes, decisions: Decisions, name: str) -> list[ScoredAnswers]:
    """Return one model's confidences: the policy's, on the rows where it asked the model, and the table's."""
    model = table.models[name]
    result = []
    stage = next((stage for stage in policy.stages if stage.model == name), None)
    if stage is not None and stage.score is not None:
        score = decisions.scores[name]
        usable = ~np.isnan(score) & ~np.isnan(model.quality)
        value = score if stage.confidence is None else curve_values(stage.confidence, score)
        is_probability, rows = stage.confidence is not None, np.flatnonzero(usable)
        result.append(ScoredAnswers("policy", value[usable], model.quality[usable], is_probability, rows))
    usable = ~np.isnan(model.confidence) & ~np.isnan(model.quality)
    if usable.any():
        rows = np.flatnonzero(usable)
        result.append(ScoredAnswers("table", model.confidence[rows], model.quality[rows], True, rows))
    return result


def check_figures(checked: ScoredAnswers, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return AUROC, AURC, ECE and Brier score with their 95 % bootstrap intervals; None if there is none.

    A score that is not a probability has only the first two. Grades between right and wrong have no AUROC.
    """
    _, value, quality, is_probability, _ = checked
    resamples = min(resamples, max(_MIN_RESAMPLES, _MAX_CELLS // max(1, len(quality))))
    binary = bool(np.isin(quality, (0.0, 1.0)).all())
    figures: dict[str, Any] = {"confidence_rows": len(quality)}
    for name, metric, applies in (
        ("auroc", metrics.auroc, binary),
        ("aurc", metrics.aurc, True),
        ("ece", metrics.ece, is_probability),
        ("brier", metrics.brier, is_probability),
    ):
        number = metric(value, quality) if applies else math.nan
        known = not math.isnan(number)
        ends = metrics.bootstrap(metric, value, quality, resamples=resamples, seed=seed) if known else None
        figures[name] = number if known else None
        figures[f"{name}_ci"] = None if ends is None or math.isnan(ends.low) else list(ends)
    return figures
