"""Outcome tables drawn from a known truth: later models are better and dearer, and confidence is honest."""

from __future__ import annotations

import numpy as np

from cascade.policy.table import ModelOutcomes, Outcomes

NAMES = ("haiku", "sonnet", "opus")


def outcomes(rows: int, seed: int = 0, *, texts: bool = True) -> Outcomes:
    """A table of three models whose answers depend on how hard a row is; `x` in a prompt means hard."""
    random = np.random.default_rng(seed)
    hard = random.normal(size=rows)
    models = {}
    for place, name in enumerate(NAMES):
        chance = 1 / (1 + np.exp(-(1.0 + 1.2 * place - 1.5 * hard)))
        right = random.random(rows) < chance
        models[name] = ModelOutcomes(
            quality=right.astype(float),
            cost_usd=np.full(rows, 1e-4 * 10.0**place),
            seconds=np.full(rows, 0.1 + place),
            confidence=np.clip(chance + 0.05 * random.normal(size=rows), 0.001, 0.999),
            signals={"p10": chance**2},
            texts=[
                "yes" if good else f"no {wrong}"
                for good, wrong in zip(right, random.integers(9, size=rows), strict=True)
            ]
            if texts
            else (),
        )
    prompts = [f"{'x ' * int(max(0, 3 * value))}question {row}" for row, value in enumerate(hard)]
    return Outcomes([str(row) for row in range(rows)], prompts, models, {}, "0" * 64)
