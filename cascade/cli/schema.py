"""`cascade schema`: the graph language as JSON Schema, so that editors complete and check graph files."""

from __future__ import annotations

import json
from typing import Any

import typer
from pydantic.json_schema import GenerateJsonSchema

from cascade.spec.schema import Graph


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a graph file."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Graph.model_json_schema()}


def schema() -> None:
    """Print the JSON Schema of graph files (graphs/schema.json)."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
