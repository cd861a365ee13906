"""The graph language: what a graph file may say, and what a kind of model, confidence or gate declares."""

from cascade.spec.kinds import (
    ConfidenceSettings,
    Draft,
    Evidence,
    GateSettings,
    ModelFacts,
    ModelSettings,
    Problem,
)
from cascade.spec.parts import Price

__all__ = [
    "ConfidenceSettings",
    "Draft",
    "Evidence",
    "GateSettings",
    "ModelFacts",
    "ModelSettings",
    "Price",
    "Problem",
]
