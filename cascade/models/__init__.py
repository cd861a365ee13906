"""Models: callable endpoints that all have the shape of `base.Model`; each kind loads on use."""

from __future__ import annotations

from pathlib import Path

from cascade.errors import ConfigError
from cascade.extras import require
from cascade.models.base import Model
from cascade.spec.schema import CascadeModel, HumanModel, LlamaCppModel, ModelConfig, OpenAIModel


def build_model(name: str, config: ModelConfig, base: Path) -> Model:
    """Return the model that a graph calls `name`.

    Args:
        name: its name in the graph.
        config: its settings.
        base: the graph file's folder; relative paths start there.

    Raises:
        ConfigError: a file or label set that the settings name does not exist or is broken,
            or the kind's extra is not installed.
        ModelError: a file on the hub cannot be had.
    """
    if isinstance(config, LlamaCppModel):
        require("llama_cpp", f"model {name!r} (kind llamacpp)", "local")
        if config.isolate == "process":
            from cascade.models.isolated import Isolated

            return Isolated(name, config, base)
        from cascade.models.llamacpp import LlamaCpp

        return LlamaCpp(name, config, base)
    if isinstance(config, OpenAIModel):
        from cascade.models.openai import OpenAI

        return OpenAI(name, config, base)
    if isinstance(config, HumanModel):
        from cascade.models.human import Human

        return Human(name, config, base)
    if isinstance(config, CascadeModel):
        raise ConfigError(f"model {name!r} is another graph; it can only be asked through Cascade")
    from cascade.models.scripted import Scripted

    return Scripted(name, config, base)
