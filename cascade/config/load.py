"""From a graph file to a checked graph; every problem of the file is reported at once, each with its line."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from cascade.config.checks import check_graph
from cascade.config.messages import problems_of
from cascade.config.references import fingerprint
from cascade.config.source import parse, read_bytes
from cascade.environment import check_environment
from cascade.errors import ConfigError
from cascade.policy.artifact import Policy
from cascade.policy.calibrate import Calibration
from cascade.policy.tighten import Tightened, read_state, state_path
from cascade.records import RaisedThreshold
from cascade.spec.kinds import ModelFacts, Problem
from cascade.spec.schema import Graph


@dataclass(frozen=True)
class LoadedGraph:
    """A checked graph with everything that its files say; nothing reads them again.

    Attributes:
        graph: the graph, with the thresholds that hold: those that drift has raised are in place of its own.
        path: its file.
        base: the file's folder; paths in the graph are relative to it.
        digest: first 8 hex digits of the SHA-256 of the file's bytes (and the digests of nested graphs).
        calibrations: stage name → its calibration.
        policy: the policy that decides in place of the stages' thresholds, if the graph refers to one.
        nested: model name → the graph that it is, for models that are graphs.
        facts: model name → its labels and its grammar.
        raised: stage name → the threshold that drift has raised, and why.
        written: the graph as the file says it.
    """

    graph: Graph
    path: Path
    base: Path
    digest: str
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    policy: Policy | None = None
    nested: dict[str, LoadedGraph] = field(default_factory=dict)
    facts: dict[str, ModelFacts] = field(default_factory=dict)
    raised: dict[str, Tightened] = field(default_factory=dict)
    written: Graph | None = None

    @property
    def tightened(self) -> dict[str, RaisedThreshold]:
        """Stage name → how its threshold was raised, and why."""
        return {name: each.fact for name, each in self.raised.items()}

    def fingerprint(self, model: str) -> str:
        """Return what identifies the answers of one of the graph's models.

        Raises:
            ConfigError: a file of the model is missing, broken, or not downloaded yet.
        """
        return fingerprint(self.graph.models[model], self.base, self.facts.get(model))

    @property
    def version(self) -> str:
        """The graph's name with its digest: `name@digest`."""
        return f"{self.graph.name}@{self.digest}"


def load_graph(
    path: str | Path,
    *,
    data: bytes | None = None,
    calibrated: bool = True,
    tuned: bool = True,
    tightened: bool = True,
    within: tuple[Path, ...] = (),
) -> LoadedGraph:
    """Load and check a graph file, and every file that it refers to.

    Args:
        path: the YAML file.
        data: check this text in place of the file's, as if it stood there.
        calibrated: read the stages' calibrations; False for the command that writes them.
        tuned: read the graph's policy; False for the commands that it is made with.
        tightened: raise thresholds as `cascade monitor` found after drift; False for what judges the graph as
            it is written: monitoring, calibrating, tuning, replays.
        within: the graph files that this one is a model of, the outermost first.

    Raises:
        ConfigError: with one line per problem, `file:line: path: what is wrong with VALUE; known: …`; or the
            file of raised thresholds is broken, or a variable of the environment is wrong.
    """
    if not within:
        check_environment()
    path = Path(path)
    data = read_bytes(path) if data is None else data
    values, marks = parse(data, str(path))
    try:
        graph = Graph.model_validate(values, strict=True)
    except ValidationError as error:
        raise marks.error(problems_of(error, values)) from None
    checked = check_graph(graph, path.parent, calibrated=calibrated, tuned=tuned)
    nested, problems = _nested(graph, (*within, path))
    if checked.problems or problems:
        raise marks.error([*checked.problems, *problems])
    inner = "".join(loaded.digest for loaded in nested.values())
    loaded = LoadedGraph(
        graph=graph,
        path=path,
        base=path.parent,
        digest=hashlib.sha256(data + inner.encode()).hexdigest()[:8],
        calibrations=checked.calibrations,
        policy=checked.policy,
        nested=nested,
        facts=checked.facts,
        written=graph,
    )
    return tighten_graph(loaded) if tightened else loaded


def tighten_graph(loaded: LoadedGraph, fixed: Container[str] = ()) -> LoadedGraph:
    """Return `loaded` with the thresholds that drift has raised, but for those of stages in `fixed`.

    Thresholds only ever rise; a stage that no longer says `on_drift: tighten` keeps its own.

    Raises:
        ConfigError: the file of raised thresholds is broken.
    """
    willing = [stage for stage in loaded.graph.stages if stage.on_drift == "tighten"]
    state = read_state(state_path(loaded.path)) if willing else {}
    raised = {stage.name: state[stage.name] for stage in willing if stage.name in state}
    raised = {name: each for name, each in raised.items() if name not in fixed}
    if not raised:
        return loaded
    models = {stage.ask[0]: raised[stage.name].accept for stage in willing if stage.name in raised}
    stages = [
        stage.model_copy(update={"accept": max(stage.accept, raised[stage.name].accept)})
        if stage.name in raised and stage.accept is not None
        else stage
        for stage in loaded.graph.stages
    ]
    policy = loaded.policy
    if policy is not None and policy.digest:  # the copy keeps the name that its file has
        parts = [
            each.model_copy(update={"accept": max(each.accept, models[each.model])})
            if each.model in models and isinstance(each.accept, float)
            else each
            for each in policy.stages
        ]
        policy = policy.model_copy(update={"stages": tuple(parts)})
    graph = loaded.graph.model_copy(update={"stages": stages})
    return replace(loaded, graph=graph, policy=policy, raised=raised)


def _nested(graph: Graph, files: tuple[Path, ...]) -> tuple[dict[str, LoadedGraph], list[Problem]]:
    """Load the graphs that models of `graph`, the last of `files`, are."""
    loaded, problems = {}, []
    for name, model in graph.models.items():
        shown = model.inner_graph()
        if shown is None:
            continue
        try:
            loaded[name] = _inner(files[-1].parent / shown, files)
            if graph.trace.store_text and not loaded[name].graph.trace.store_text:
                text = f"{shown!r} keeps no texts (trace.store_text: false); say so in this graph, too"
                problems.append(Problem(("models", name, "path"), text))
            budgets = loaded[name].graph.budgets
            if budgets.account_day_usd is not None or budgets.accounts:
                text = (
                    "has budgets of accounts, but its runs within another have none; give them to this graph"
                )
                problems.append(Problem(("models", name, "path"), f"{shown!r} {text}"))
            remote = [inner for inner, other in loaded[name].graph.models.items() if not other.local]
            if model.local and remote:
                text = f"true, but its model {remote[0]!r} is not local; say false"
                problems.append(Problem(("models", name, "local"), text))
        except ConfigError as error:
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            problems.append(Problem(("models", name, "path"), f"{shown!r}: {error.problems[0]}{more}"))
    return loaded, problems


def _inner(path: Path, files: tuple[Path, ...]) -> LoadedGraph:
    outer = [file.resolve() for file in files]
    if path.resolve() in outer:
        circle = [*files[outer.index(path.resolve()) :], path]
        raise ConfigError(
            f"cycle: {' → '.join(file.name for file in circle)}; let one of them ask another model"
        )
    inner = load_graph(path, within=files)
    people = [name for name, model in inner.graph.models.items() if model.is_person]
    if people:
        raise ConfigError(f"its model {people[0]!r} is a person; only the outermost graph can wait for one")
    return inner
