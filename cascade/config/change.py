"""A graph with other thresholds: what `--set PATH=VALUE` may change, checked like a graph file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cascade.config.checks import check_graph
from cascade.config.load import LoadedGraph, tighten_graph
from cascade.config.messages import problems_of, suggest
from cascade.errors import ConfigError
from cascade.policy.artifact import read_policy
from cascade.spec.kinds import Loc, Problem
from cascade.spec.parts import Limits
from cascade.spec.schema import Graph


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
    known = _settable(loaded.graph)
    written = loaded.written or loaded.graph
    data = written.model_dump(exclude_unset=True)
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
    checked = check_graph(graph, loaded.base)
    if checked.problems:
        raise _error(loaded, given, checked.problems)
    changed = replace(
        loaded,
        graph=graph,
        written=graph,
        calibrations=checked.calibrations,
        policy=checked.policy,
        facts=checked.facts,
        raised={},
    )
    chosen = {stage.name for stage in graph.stages if known.get(f"{stage.name}.accept") in given}
    return tighten_graph(changed, fixed=chosen) if policy is None and loaded.raised else changed


def _decide_by(data: dict[str, Any], policy: Path) -> None:
    """Put a policy into a graph's data, in place of the thresholds of the stages that it decides about."""
    data["policy"] = str(policy)
    with contextlib.suppress(ConfigError):  # the checks report what is wrong with the file
        chain = read_policy(policy).chain
        for stage in data["stages"]:
            if len(stage.get("ask", ())) == 1 and stage["ask"][0] in chain:
                stage.pop("accept", None)


def _settable(graph: Graph) -> dict[str, Loc]:
    """Return every path that can be set, with its location in the graph."""
    paths: dict[str, Loc] = {}
    for index, stage in enumerate(graph.stages):
        if stage.confidence is not None and graph.policy is None:
            paths[f"{stage.name}.accept"] = ("stages", index, "accept")
            paths[f"{stage.name}.audit_rate"] = ("stages", index, "audit_rate")
        if stage.gate is not None:
            paths[f"{stage.name}.gate.accept"] = ("stages", index, "gate", "accept")
    paths |= {f"limits.{name}": ("limits", name) for name in Limits.model_fields}
    return paths | {"on_exhausted": ("on_exhausted",)}


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
    """Return an error that names the setting behind each problem."""
    every = f"{loaded.path} with --set {' '.join(given.values())}" if given else str(loaded.path)
    return ConfigError(
        *(
            f"--set {given[problem.loc]}: {problem.text}"
            if problem.loc in given
            else f"{every}: {'.'.join(map(str, problem.loc))}: {problem.text}"
            for problem in problems
        )
    )
