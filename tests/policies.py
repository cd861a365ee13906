"""Helper of the tests: policies and outcome tables that are made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cascade.policy.artifact import Certificate, Feature, Goal, Policy, PolicyStage, PromptGate, Score, Term
from cascade.policy.calibrate import Curve

STRAIGHT = Curve(method="isotonic", x=(0.0, 1.0), y=(0.001, 0.999))


def reported(model: str) -> Score:
    """Return a score that is the confidence which `model` reported."""
    term = Term(feature=Feature(kind="confidence", model=model), weight=1.0)
    return Score(bias=0.0, terms=(term,))


def stage(model: str, accept: Any = "always", **settings: Any) -> PolicyStage:
    """Return a stage; one with a threshold is scored by the model's reported confidence."""
    if isinstance(accept, float):
        settings = {"score": reported(model), "confidence": STRAIGHT, **settings}
    return PolicyStage(model=model, accept=accept, **settings)


def policy(
    *stages: PolicyStage, certificates: Sequence[Certificate] = (), gate: PromptGate | None = None
) -> Policy:
    """Return a policy of these stages."""
    return Policy(
        goal=Goal(kind="max_risk", value=0.1, delta=0.05),
        gate=gate,
        stages=stages,
        certificates=tuple(certificates),
        rows=0,
        fitted_rows=0,
        certified_rows=0,
        data_sha256="",
        seed=0,
        fitted="2026-01-01",
    )


def certificate(stage: str, alpha: float, kind: Any = "max_risk") -> Certificate:
    """Return a promise of `stage` with an error, or loss, of at most `alpha`."""
    return Certificate(
        stage=stage, kind=kind, alpha=alpha, delta=0.05, bound=alpha, rows=100, accepted=50, errors=1
    )


def row(name: str, field: str, **models: tuple[float, float, float | None] | None) -> dict[str, Any]:
    """Return a row: model → (quality, cost, confidence), None for a model that was not asked."""
    entries = {}
    for model, outcome in models.items():
        if outcome is not None:
            quality, cost, confidence = outcome
            sure = {} if confidence is None else {"confidence": confidence}
            entries[model] = {"quality": quality, "cost_usd": cost, "seconds": cost * 2, **sure}
    return {"id": name, "prompt": f"prompt {name}", "topic": field, "models": entries}
