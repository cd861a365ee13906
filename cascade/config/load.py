"""From a graph file to a checked graph; every problem of the file is reported at once, each with its line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from cascade.config.checks import find_problems
from cascade.config.messages import problems_of
from cascade.config.policies import read_graph_policy
from cascade.config.source import Problem, parse, read_bytes
from cascade.errors import ConfigError
from cascade.policy.artifact import Policy
from cascade.policy.calibrate import Calibration
from cascade.spec.schema import CascadeModel, Graph, HumanModel


@dataclass(frozen=True)
class LoadedGraph:
    """A checked graph and where it comes from.

    Attributes:
        graph: the graph.
        path: its file.
        base: the file's folder; paths in the graph are relative to it.
        digest: first 8 hex digits of the SHA-256 of the file's bytes (and the digests of nested graphs).
        calibrations: stage name → its calibration.
        policy: the policy that decides in place of the stages' thresholds, if the graph refers to one.
        nested: model name → the graph that it is, for models of kind cascade.
    """

    graph: Graph
    path: Path
    base: Path
    digest: str
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    policy: Policy | None = None
    nested: dict[str, LoadedGraph] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The graph's name with its digest: `name@digest`."""
        return f"{self.graph.name}@{self.digest}"


def load_graph(
    path: str | Path, *, calibrated: bool = True, tuned: bool = True, within: tuple[Path, ...] = ()
) -> LoadedGraph:
    """Load and check a graph file.

    Args:
        path: the YAML file.
        calibrated: read the stages' calibrations; False for the command that writes them.
        tuned: read the graph's policy; False for the commands that it is made with.
        within: the graph files that this one is a model of, the outermost first.

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
    problems, calibrations = find_problems(graph, path.parent, calibrated=calibrated, tuned=tuned)
    nested, found = _nested(graph, (*within, path))
    problems += found
    if problems:
        raise marks.error(problems)
    inner = "".join(loaded.digest for loaded in nested.values())
    digest = hashlib.sha256(data + inner.encode()).hexdigest()[:8]
    policy, _ = read_graph_policy(graph, path.parent) if tuned else (None, [])
    return LoadedGraph(graph, path, path.parent, digest, calibrations, policy, nested)


def _nested(graph: Graph, files: tuple[Path, ...]) -> tuple[dict[str, LoadedGraph], list[Problem]]:
    """Load the graphs that models of `graph`, the last of `files`, are."""
    loaded, problems = {}, []
    for name, model in graph.models.items():
        if not isinstance(model, CascadeModel):
            continue
        try:
            loaded[name] = _inner(files[-1].parent / model.path, files)
            if graph.trace.store_text and not loaded[name].graph.trace.store_text:
                text = f"{model.path!r} keeps no texts (trace.store_text: false); say so in this graph, too"
                problems.append(Problem(("models", name, "path"), text))
            budgets = loaded[name].graph.budgets
            if budgets.account_day_usd is not None or budgets.accounts:
                text = (
                    "has budgets of accounts, but its runs within another have none; give them to this graph"
                )
                problems.append(Problem(("models", name, "path"), f"{model.path!r} {text}"))
            remote = [inner for inner, other in loaded[name].graph.models.items() if not other.local]
            if model.local and remote:
                text = f"true, but its model {remote[0]!r} is not local; say false"
                problems.append(Problem(("models", name, "local"), text))
        except ConfigError as error:
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            problems.append(Problem(("models", name, "path"), f"{model.path!r}: {error.problems[0]}{more}"))
    return loaded, problems


def _inner(path: Path, files: tuple[Path, ...]) -> LoadedGraph:
    ways = [file.resolve() for file in files]
    if path.resolve() in ways:
        circle = [*files[ways.index(path.resolve()) :], path]
        raise ConfigError(
            f"cycle: {' → '.join(file.name for file in circle)}; let one of them ask another model"
        )
    inner = load_graph(path, within=files)
    people = [name for name, model in inner.graph.models.items() if isinstance(model, HumanModel)]
    if people:
        raise ConfigError(f"its model {people[0]!r} is a person; only the outermost graph can wait for one")
    return inner
