"""`cascade schema`: print the graph language as JSON Schema, for completion and checks in editors."""

from __future__ import annotations

import json
from typing import Any

import typer


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a graph file."""
    from pydantic.json_schema import GenerateJsonSchema

    from cascade.spec.schema import Graph

    return {"$schema": GenerateJsonSchema.schema_dialect, **Graph.model_json_schema()}


def schema() -> None:
    """Print the JSON Schema of graph files (graphs/schema.json)."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
