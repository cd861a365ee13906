"""Models: callable endpoints that all have the shape of `base.Model`.

Each kind is one module, or one package, that declares its settings (`cascade.spec.kinds.ModelSettings`) and
imports its runtime when a model is built.
"""

from __future__ import annotations

from pathlib import Path

from cascade.models.base import Model, OnText, Prompt, Reply
from cascade.spec.kinds import ModelFacts, ModelSettings

__all__ = ["Model", "OnText", "Prompt", "Reply", "build_model"]


def build_model(name: str, settings: ModelSettings, base: Path, facts: ModelFacts | None = None) -> Model:
    """Return the model that a graph calls `name`.

    Args:
        name: its name in the graph.
        settings: its settings.
        base: the graph file's folder; relative paths start there.
        facts: what loading the graph found out (`LoadedGraph.facts`); resolved here where that is missing.

    Raises:
        ConfigError: a file or label set that the settings name does not exist or is broken,
            or the kind's extra is not installed.
    """
    model: Model = settings.build(name, base, settings.resolve(base) if facts is None else facts)
    return model
