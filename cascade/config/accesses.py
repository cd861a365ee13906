"""What a graph file would read, run and contact, listed from its text alone: for files from strangers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from cascade.config.messages import problems_of
from cascade.config.source import parse, read_bytes
from cascade.errors import ConfigError
from cascade.spec.kinds import Access
from cascade.spec.schema import Graph


class GraphAccess(NamedTuple):
    """One access of a graph: the part of the file that asks for it, and what it is."""

    part: str
    access: Access


def list_accesses(path: str | Path, within: tuple[Path, ...] = ()) -> list[GraphAccess]:
    """Return all that a graph file, and the graphs that are its models, would make the process do.

    Only these files are read: no model, calibration or module is opened, and nothing is contacted.

    Args:
        path: the YAML file.
        within: the graph files that this one is a model of.

    Raises:
        ConfigError: a file is missing or is no graph.
    """
    path = Path(path)
    values, marks = parse(read_bytes(path), str(path))
    try:
        graph = Graph.model_validate(values, strict=True)
    except ValidationError as error:
        raise marks.error(problems_of(error, values)) from None
    listed = [_noted(part, access, path.parent) for part, access in _accesses(graph)]
    for name, model in graph.models.items():
        inner = model.inner_graph()
        if inner is None or path.parent / inner in (*within, path):
            continue
        try:
            below = list_accesses(path.parent / inner, (*within, path))
        except ConfigError as error:
            raise ConfigError(*(f"models.{name}: {problem}" for problem in error.problems)) from None
        listed += [GraphAccess(f"models.{name} > {part}", access) for part, access in below]
    return listed


def _accesses(graph: Graph) -> Iterator[tuple[str, Access]]:
    for name, model in graph.models.items():
        yield from ((f"models.{name}", access) for access in model.accesses())
    for stage in graph.stages:
        for part in (stage.confidence, stage.gate):
            if part is not None:
                yield from ((f"stages.{stage.name}", access) for access in part.accesses())
        if stage.canary is not None and stage.canary.calibration is not None:
            yield f"stages.{stage.name}", Access("reads file", stage.canary.calibration)
    if graph.policy is not None:
        yield "policy", Access("reads file", graph.policy)
    if graph.trace.langsmith:
        yield (
            "trace.langsmith",
            Access("contacts", "LangSmith", "with requests and answers, if its variables say so"),
        )
    if graph.trace.otel_content:
        yield (
            "trace.otel_content",
            Access("contacts", "the OpenTelemetry collector", "with requests and answers"),
        )


def _noted(part: str, access: Access, base: Path) -> GraphAccess:
    """Note a file that is not below the graph's folder."""
    outside = False
    if access.action in ("reads file", "writes folder") and not access.target.startswith("bundled:"):
        folder = base.resolve()
        try:
            outside = not (folder / access.target).resolve().is_relative_to(folder)
        except (OSError, ValueError):  # a name that no file can have
            outside = True
    return GraphAccess(part, access._replace(note="outside the graph's folder") if outside else access)
