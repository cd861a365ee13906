"""Helper of the tests: graphs of scripted models, written to a file and loaded as users load theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cascade import Cascade

REMOTE = {"local": False, "price": {"input": 1.0, "output": 2.0}}


def scripted(default: str | None = None, **settings: Any) -> dict[str, Any]:
    """Return the settings of a scripted model that answers `default`."""
    return {"kind": "scripted", "default": default, "confidence": 1.0, **settings}


def checked(
    name: str, *models: str, accept: float = 0.8, by: str = "logprob", **settings: Any
) -> dict[str, Any]:
    """Return a stage that asks `models` and checks their confidence."""
    return {"name": name, "ask": list(models), "confidence": {"by": by}, "accept": accept, **settings}


def write(folder: Path, models: dict[str, Any], stages: list[dict[str, Any]], **settings: Any) -> Path:
    """Write a graph file and return its path."""
    path = folder / "graph.yaml"
    yaml = YAML(typ="safe")
    yaml.width = 10_000  # long keys on one line, which other readers take, too
    yaml.representer.ignore_aliases = lambda _: True
    with path.open("w") as file:
        yaml.dump({"name": "test", "models": models, "stages": stages, **settings}, file)
    return path


def load(folder: Path, models: dict[str, Any], stages: list[dict[str, Any]], **settings: Any) -> Cascade:
    """Write a graph file and load it."""
    return Cascade.load(write(folder, models, stages, **settings))
