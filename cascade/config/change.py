"""A graph with other thresholds: what `--set PATH=VALUE` may change, checked like a graph file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from cascade.config.checks import find_problems
from cascade.config.load import LoadedGraph
from cascade.config.messages import problems_of, suggest
from cascade.config.schema import Graph, Limits
from cascade.config.source import Loc, Problem
from cascade.errors import ConfigError


def change_graph(loaded: LoadedGraph, settings: Sequence[str]) -> LoadedGraph:
    """Return `loaded` with `settings` changed; its file stays as it is.

    Args:
        loaded: a checked graph.
        settings: each `PATH=VALUE`: STAGE.accept, STAGE.audit_rate, STAGE.gate.accept, limits.cost_usd,
            limits.seconds, limits.calls or on_exhausted; VALUE `null` removes a limit or a gate's threshold.

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
    try:
        graph = Graph.model_validate(data, strict=True)
    except ValidationError as error:
        raise _error(loaded, given, problems_of(error, data)) from None
    found, calibrations = find_problems(graph, loaded.base)
    if found:
        raise _error(loaded, given, found)
    return replace(loaded, graph=graph, calibrations=calibrations)


def _places(graph: Graph) -> dict[str, Loc]:
    """Every path that can be set, and where it is in the graph."""
    places: dict[str, Loc] = {}
    for index, stage in enumerate(graph.stages):
        if stage.confidence is not None:
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
    every = f"{loaded.path} with --set {' '.join(given.values())}"
    return ConfigError(
        *(
            f"--set {given[problem.loc]}: {problem.text}"
            if problem.loc in given
            else f"{every}: {'.'.join(map(str, problem.loc))}: {problem.text}"
            for problem in problems
        )
    )
