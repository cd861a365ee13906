"""How good each confidence is: of the policy's own scores, and of what models reported."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cascade.evaluate import metrics
from cascade.policy.apply import Decisions, curve_values
from cascade.policy.artifact import Policy
from cascade.policy.table import Column, Outcomes


class Checked(NamedTuple):
    """A model's confidences and the quality of the answers that they belong to; `by` is policy or table."""

    by: str
    confidence: Column
    quality: Column
    is_probability: bool


def confidences(policy: Policy, table: Outcomes, decisions: Decisions, name: str) -> list[Checked]:
    """Return one model's confidences: the policy's, on rows where it asked the model, and the table's."""
    model = table.models[name]
    found = []
    stage = next((each for each in policy.stages if each.model == name), None)
    if stage is not None and stage.score is not None:
        score = decisions.scores[name]
        usable = ~np.isnan(score) & ~np.isnan(model.quality)
        value = score if stage.confidence is None else curve_values(stage.confidence, score)
        found.append(Checked("policy", value[usable], model.quality[usable], stage.confidence is not None))
    usable = ~np.isnan(model.confidence) & ~np.isnan(model.quality)
    if usable.any():
        found.append(Checked("table", model.confidence[usable], model.quality[usable], is_probability=True))
    return found


def check_figures(checked: Checked) -> dict[str, float | int | None]:
    """Return AUROC, AURC, ECE and Brier, None where there is none.

    A score that is no probability has the first two only; grades between right and wrong have no AUROC.
    """
    _, value, quality, is_probability = checked
    binary = bool(np.isin(quality, (0.0, 1.0)).all())
    figures = {
        "auroc": metrics.auroc(value, quality) if binary else math.nan,
        "aurc": metrics.aurc(value, quality),
        "ece": metrics.ece(value, quality) if is_probability else math.nan,
        "brier": metrics.brier(value, quality) if is_probability else math.nan,
    }
    known = {name: None if math.isnan(number) else number for name, number in figures.items()}
    return {"confidence_rows": len(quality), **known}
