"""A graph with other thresholds: what `--set PATH=VALUE` may change, checked like a graph file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cascade.config.checks import find_problems
from cascade.config.load import LoadedGraph
from cascade.config.messages import problems_of, suggest
from cascade.config.policies import read_graph_policy
from cascade.config.source import Loc, Problem
from cascade.errors import ConfigError
from cascade.policy.artifact import read_policy
from cascade.policy.tighten import read_state, state_path
from cascade.records import RaisedThreshold
from cascade.spec.schema import Graph, Limits


def change_graph(
    loaded: LoadedGraph, settings: Sequence[str], policy: str | Path | None = None
) -> LoadedGraph:
    """Return `loaded` with `settings` changed; its file stays as it is.

    Args:
        loaded: a checked graph.
        settings: each `PATH=VALUE`: STAGE.accept, STAGE.audit_rate, STAGE.gate.accept, limits.cost_usd,
            limits.seconds, limits.calls or on_exhausted; VALUE `null` removes a limit or a gate's threshold.
        policy: a policy file that decides in place of the stages' thresholds.

    Raises:
        ConfigError: a path or a value is wrong, or the changed graph would not pass `cascade check`.
    """
    known = _places(loaded.graph)
    data = loaded.graph.model_dump(exclude_unset=True)
    given: dict[Loc, str] = {}
    problems = []
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or path not in known:
            what = f"unknown setting {path!r}; {suggest(path, known)}" if equals else "expected PATH=VALUE"
            problems.append(f"--set {setting}: {what}")
            continue
        given[known[path]] = setting
        _put(data, known[path], _value(value))
    if problems:
        raise ConfigError(*problems)
    if policy is not None:
        _decide_by(data, Path(policy).absolute())
    try:
        graph = Graph.model_validate(data, strict=True)
    except ValidationError as error:
        raise _error(loaded, given, problems_of(error, data)) from None
    found, calibrations = find_problems(graph, loaded.base)
    if found:
        raise _error(loaded, given, found)
    tuned, _ = read_graph_policy(graph, loaded.base)
    return replace(loaded, graph=graph, calibrations=calibrations, policy=tuned)


def _decide_by(data: dict[str, Any], policy: Path) -> None:
    """Put a policy into a graph's data, in place of the thresholds that it decides about."""
    data["policy"] = str(policy)
    with contextlib.suppress(ConfigError):  # what is wrong with the file is found with everything else
        chain = read_policy(policy).chain
        for stage in data["stages"]:
            if len(stage.get("ask", ())) == 1 and stage["ask"][0] in chain:
                stage.pop("accept", None)


def _places(graph: Graph) -> dict[str, Loc]:
    """Every path that can be set, and where it is in the graph."""
    places: dict[str, Loc] = {}
    for index, stage in enumerate(graph.stages):
        if stage.confidence is not None and graph.policy is None:
            places[f"{stage.name}.accept"] = ("stages", index, "accept")
            places[f"{stage.name}.audit_rate"] = ("stages", index, "audit_rate")
        if stage.gate is not None:
            places[f"{stage.name}.gate.accept"] = ("stages", index, "gate", "accept")
    places |= {f"limits.{name}": ("limits", name) for name in Limits.model_fields}
    return places | {"on_exhausted": ("on_exhausted",)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _put(data: Any, loc: Loc, value: Any) -> None:
    for part in loc[:-1]:
        data = data.setdefault(part, {}) if isinstance(data, dict) else data[part]
    data[loc[-1]] = value


def _error(loaded: LoadedGraph, given: Mapping[Loc, str], problems: Sequence[Problem]) -> ConfigError:
    """Return the error that names, of each problem, the setting that it comes from."""
    every = f"{loaded.path} with --set {' '.join(given.values())}" if given else str(loaded.path)
    return ConfigError(
        *(
            f"--set {given[problem.loc]}: {problem.text}"
            if problem.loc in given
            else f"{every}: {'.'.join(map(str, problem.loc))}: {problem.text}"
            for problem in problems
        )
    )


def tightened_graph(loaded: LoadedGraph) -> tuple[LoadedGraph, dict[str, RaisedThreshold]]:
    """Return `loaded` with the thresholds that drift has raised, and for each such stage why.

    Thresholds only ever rise; a stage that no longer says `on_drift: tighten` keeps its own.

    Raises:
        ConfigError: the file of raised thresholds is broken.
    """
    willing = {stage.name for stage in loaded.graph.stages if stage.on_drift == "tighten"}
    state = read_state(state_path(loaded.path)) if willing else {}
    raised = {name: found for name, found in state.items() if name in willing}
    if not raised:
        return loaded, {}
    at = {name: found.accept for name, found in raised.items()}
    models = {stage.ask[0]: at[stage.name] for stage in loaded.graph.stages if stage.name in raised}
    stages = [
        stage.model_copy(update={"accept": max(stage.accept, at[stage.name])})
        if stage.name in at and stage.accept is not None
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
    facts = {name: found.fact for name, found in raised.items()}
    return replace(loaded, graph=graph, policy=policy), facts
