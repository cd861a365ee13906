"""From a graph file to a checked graph; every problem of the file is reported at once, each with its line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from cascade.config.checks import find_problems
from cascade.config.messages import problems_of
from cascade.config.schema import Graph
from cascade.config.source import parse, read_bytes
from cascade.policy.calibrate import Calibration


@dataclass(frozen=True)
class LoadedGraph:
    """A checked graph and where it comes from.

    Attributes:
        graph: the graph.
        path: its file.
        base: the file's folder; paths in the graph are relative to it.
        digest: first 8 hex digits of the SHA-256 of the file's bytes.
        calibrations: stage name → its calibration.
    """

    graph: Graph
    path: Path
    base: Path
    digest: str
    calibrations: dict[str, Calibration] = field(default_factory=dict)


def load_graph(path: str | Path, *, calibrated: bool = True) -> LoadedGraph:
    """Load and check a graph file.

    Args:
        path: the YAML file.
        calibrated: read the stages' calibrations; False for the command that writes them.

    Raises:
        ConfigError: with one line per problem, `file:line: path: what is wrong with VALUE; known: …`.
    """
    path = Path(path)
    data = read_bytes(path)
    values, marks = parse(data, str(path))
    try:
        graph = Graph.model_validate(values, strict=True)
    except ValidationError as error:
        raise marks.error(problems_of(error, values)) from None
    problems, calibrations = find_problems(graph, path.parent, calibrated=calibrated)
    if problems:
        raise marks.error(problems)
    digest = hashlib.sha256(data).hexdigest()[:8]
    return LoadedGraph(graph, path, path.parent, digest, calibrations)
