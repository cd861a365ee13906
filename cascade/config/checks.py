"""Static checks of a whole graph: what no single field can tell. Nothing is called, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cascade.config import policies, thresholds, trials
from cascade.config.messages import suggest
from cascade.policy.artifact import Policy
from cascade.policy.calibrate import Calibration
from cascade.policy.early_exit import BOUNDED
from cascade.spec.kinds import Loc, ModelFacts, Problem
from cascade.spec.schema import Graph, Stage

END = "end"


class CheckedGraph(NamedTuple):
    """What the checks of a graph found.

    Attributes:
        problems: what is wrong, as far as it could be judged.
        facts: model name → what its files say.
        calibrations: stage name → its calibration.
        policy: the graph's policy.
    """

    problems: list[Problem]
    facts: dict[str, ModelFacts]
    calibrations: dict[str, Calibration]
    policy: Policy | None


def check_graph(graph: Graph, base: Path, *, calibrated: bool = True, tuned: bool = True) -> CheckedGraph:
    """Read every file that `graph` refers to, once, and find everything that is wrong.

    Args:
        graph: a graph that fits the schema.
        base: its folder.
        calibrated: read the calibrations and judge thresholds by them.
        tuned: read the policy and see whether it fits.
    """
    policy, unread = policies.read_graph_policy(graph, base) if tuned else (None, [])
    decided = policies.decided_stages(graph)
    problems = [*_names(graph), *_references(graph), *_shapes(graph, decided)]
    sound = not problems
    if sound:
        problems = [*_flow(graph), *_haste(graph), *trials.trial_problems(graph)]
    problems += unread
    facts, wrong = _inspect(graph, base)
    problems += wrong
    problems += thresholds.gate_problems(graph, facts)
    problems += thresholds.confidence_problems(graph, facts, base)
    problems += thresholds.limit_problems(graph, facts)
    calibrations, misfits = thresholds.read_calibrations(graph, facts, base) if calibrated else ({}, [])
    if policy is not None and sound and not misfits:
        known = calibrations if calibrated else None
        problems += policies.policy_problems(graph, policy, base, facts, known)
    problems += [*misfits, *thresholds.accept_problems(graph, facts, calibrations)]
    return CheckedGraph(problems, facts, calibrations, policy)


def _inspect(graph: Graph, base: Path) -> tuple[dict[str, ModelFacts], list[Problem]]:
    """Look at every model; return what is known about them and what is wrong with them."""
    facts, problems = {}, []
    for name, model in graph.models.items():
        facts[name], wrong = model.inspect(base)
        problems += [Problem(("models", name, *problem.loc), problem.text) for problem in wrong]
    for name, model in graph.models.items():
        if (unpriced := model.price_problem()) is not None:
            problems.append(Problem(("models", name, *unpriced.loc), unpriced.text))
    return facts, problems


def _names(graph: Graph) -> Iterator[Problem]:
    """Check that stage names are unique, and none is the word for the end."""
    seen: dict[str, int] = {}
    for index, stage in enumerate(graph.stages):
        loc = ("stages", index, "name")
        if stage.name == END:
            yield Problem(loc, f"{END!r} is the word for the end of the cascade; choose another name")
        if stage.name in seen:
            yield Problem(loc, f"stage name {stage.name!r} is already that of stages.{seen[stage.name]}")
        seen.setdefault(stage.name, index)


def _references(graph: Graph) -> Iterator[Problem]:
    """Check that every named model and stage exists, and every model is used."""
    used = set()
    for loc, name in _model_references(graph):
        used.add(name)
        if name not in graph.models:
            yield Problem(loc, f"unknown model {name!r}; {suggest(name, graph.models)}")
    stages = [stage.name for stage in graph.stages]
    for loc, name in _stage_references(graph):
        known = [*stages, END] if loc[-1] == "escalate" else stages
        if name not in known:
            yield Problem(loc, f"unknown stage {name!r}; {suggest(name, known)}")
    for name in graph.models:
        if name not in used:
            text = f"model {name!r} is never asked; name it in a stage's 'ask', or remove it"
            yield Problem(("models", name), text)


def _model_references(graph: Graph) -> Iterator[tuple[Loc, str]]:
    for index, stage in enumerate(graph.stages):
        for position, name in enumerate(stage.ask):
            yield ("stages", index, "ask", position), name
        for key, name in stage.gate.models.items() if stage.gate is not None else ():
            yield ("stages", index, "gate", key), name
        for part, name in stage.tried_models.items():
            yield ("stages", index, part, "model"), name
    if graph.baseline is not None:
        yield ("baseline",), graph.baseline


def _stage_references(graph: Graph) -> Iterator[tuple[Loc, str]]:
    for index, stage in enumerate(graph.stages):
        for key, name in _branches(stage).items():
            yield ("stages", index, "gate", "to", key), name
        if stage.escalate is not None:
            yield ("stages", index, "escalate"), stage.escalate


def _shapes(graph: Graph, decided: Container[str]) -> Iterator[Problem]:
    """Check that a stage either asks models or branches, and has only the keys that go with that.

    `decided` are the stages whose answers a policy accepts, so that a check needs no threshold.
    """
    for index, stage in enumerate(graph.stages):
        problems = _branching(stage) if _branches(stage) else _asking(stage, stage.name in decided)
        yield from (Problem(("stages", index, *problem.loc), problem.text) for problem in problems)


def _branching(stage: Stage) -> Iterator[Problem]:
    for key in (
        "ask",
        "samples",
        "confidence",
        "accept",
        "audit_rate",
        "on_drift",
        "on_truncated",
        "early_exit",
        "hedge",
        "shadow",
        "canary",
        "on_alarm",
    ):
        if key in stage.model_fields_set:
            yield Problem((key,), f"{key!r} cannot stand beside a gate's 'to': a branching stage asks nobody")
    if stage.gate is not None and "top" in stage.gate.model_fields_set:
        yield Problem(("gate", "top"), "'top' cannot stand beside 'to': exactly one branch is taken")


def _asking(stage: Stage, decided: bool) -> Iterator[Problem]:
    if stage.gate is not None and stage.gate.to is not None:
        yield Problem(("gate", "to"), "no branches; give at least one candidate with its stage")
    elif not stage.ask:
        yield Problem((), f"stage {stage.name!r} asks nobody; give 'ask', or a gate with 'to'")
    for position, name in enumerate(stage.ask):
        if name in stage.ask[:position]:
            yield Problem(("ask", position), f"model {name!r} is asked twice; use 'samples' for more drafts")
    if stage.on_drift == "tighten" and not stage.audit_rate:
        text = "'tighten' needs 'audit_rate' beside it: only audits tell which threshold still holds"
        yield Problem(("on_drift",), text)
    if decided:
        return
    if (stage.confidence is None) != (stage.accept is None):
        key, other = ("accept", "confidence") if stage.confidence is None else ("confidence", "accept")
        yield Problem((key,), f"{key!r} needs {other!r} beside it: a check is a method and a threshold")
    if stage.audit_rate and stage.confidence is None:
        text = "'audit_rate' needs 'confidence' and 'accept' beside it: it audits what they accept"
        yield Problem(("audit_rate",), text)


def _haste(graph: Graph) -> Iterator[Problem]:
    """Check that early exit can judge the drafts it stops, and that a hedge has a stage to start."""
    for index, stage in enumerate(graph.stages):
        bounded = stage.confidence is not None and stage.confidence.early_exit_signal is not None
        if stage.early_exit and not bounded:
            text = f"needs confidence by logprob with one of the signals {', '.join(BOUNDED)}; remove it"
            yield Problem(("stages", index, "early_exit"), text)
        elif stage.early_exit and graph.on_exhausted == "best":
            text = "a stopped draft cannot be the best that on_exhausted: best returns; remove one of them"
            yield Problem(("stages", index, "early_exit"), text)
        if stage.hedge is None:
            continue
        after = graph.next_stage(stage.name)
        if after is None:
            text = f"{stage.hedge:g}: no stage follows {stage.name!r} that could be started; remove it"
            yield Problem(("stages", index, "hedge"), text)
            continue
        people = [name for name in (*stage.ask, *graph.stage(after).ask) if graph.models[name].is_person]
        if people:
            text = f"{stage.hedge:g}: {people[0]!r} is a person, who cannot be asked beside another stage"
            yield Problem(("stages", index, "hedge"), f"{text}; remove it")


def _flow(graph: Graph) -> Iterator[Problem]:
    """Check that every stage can be reached, none is visited twice, and audits have a next stage."""
    exits = {stage.name: _exits(graph, stage) for stage in graph.stages}
    reached = _reachable(exits, graph.stages[0].name)
    for index, stage in enumerate(graph.stages):
        if stage.name not in reached:
            text = f"stage {stage.name!r} can never be reached from the first, {graph.stages[0].name!r}"
            yield Problem(("stages", index), f"{text}; let a stage escalate or branch to it, or remove it")
    index_of = {stage.name: index for index, stage in enumerate(graph.stages)}
    for index, stage in enumerate(graph.stages):
        if stage.audit_rate and graph.next_stage(stage.name) is None:
            text = f"{stage.audit_rate:g}: no stage follows {stage.name!r} to grade its answers; remove it"
            yield Problem(("stages", index, "audit_rate"), text)
    for cycle in _cycles(exits):
        path = " → ".join([*cycle, cycle[0]])
        text = f"cycle: {path}; let one of them escalate to another stage, or to 'end'"
        yield Problem(("stages", index_of[cycle[-1]]), text)


def _branches(stage: Stage) -> Mapping[str, str]:
    return stage.gate.to or {} if stage.gate is not None else {}


def _exits(graph: Graph, stage: Stage) -> list[str]:
    after = graph.next_stage(stage.name)
    return list(dict.fromkeys([*_branches(stage).values(), *([] if after is None else [after])]))


def _reachable(exits: Mapping[str, list[str]], start: str) -> set[str]:
    reached, waiting = {start}, [start]
    while waiting:
        new = [name for name in exits[waiting.pop()] if name not in reached]
        reached.update(new)
        waiting.extend(new)
    return reached


def _cycles(exits: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """Yield one cycle for each edge that closes one, by depth-first search without recursion."""
    done: set[str] = set()
    for start in exits:
        path = [start] if start not in done else []
        ahead = [iter(exits[start])]
        while path:
            name = next(ahead[-1], None)
            if name is None:
                done.add(path.pop())
                ahead.pop()
            elif name in path:
                yield path[path.index(name) :]
            elif name not in done:
                path.append(name)
                ahead.append(iter(exits[name]))
