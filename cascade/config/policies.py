"""The policy that a graph refers to: whether it fits the graph, and whether its models have changed since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from cascade.config.messages import suggest
from cascade.config.references import existing_file, fingerprint
from cascade.errors import ConfigError
from cascade.policy.artifact import Policy, read_policy
from cascade.policy.calibrate import Calibration
from cascade.policy.tuned import before_last
from cascade.spec.kinds import ModelFacts, Problem
from cascade.spec.schema import Graph, Stage


def read_graph_policy(graph: Graph, base: Path) -> tuple[Policy | None, list[Problem]]:
    """Return the policy that `graph` refers to, if any, and what is wrong with its file."""
    if graph.policy is None:
        return None, []
    try:
        return read_policy(existing_file(graph.policy, base, "policy file")), []
    except ConfigError as error:
        return None, [Problem(("policy",), text) for text in error.problems]


def decided_stages(graph: Graph) -> set[str]:
    """Return the stages that a policy may decide about, or pass over, so that they need no `accept`."""
    return {stage.name for stage in graph.stages if len(stage.ask) == 1} if graph.policy else set()


def policy_problems(
    graph: Graph,
    policy: Policy,
    base: Path,
    facts: Mapping[str, ModelFacts],
    calibrations: Mapping[str, Calibration] | None,
) -> Iterator[Problem]:
    """Yield why `policy` does not fit `graph`.

    Args:
        graph: the graph; names in it are known to be right.
        policy: its policy.
        base: its folder.
        facts: what is known about its models.
        calibrations: of its stages; None leaves out whether models are still what they were.
    """
    misordered = list(_order(graph, policy))
    yield from misordered
    if misordered:
        return
    for index, stage in enumerate(graph.stages):
        if len(stage.ask) == 1 and stage.ask[0] in policy.chain:
            for problem in _stage(stage, policy):
                yield Problem(("stages", index, *problem.loc), problem.text)
        elif stage.confidence is not None and stage.accept is None and not before_last(policy, graph, stage):
            text = "'confidence' needs 'accept' beside it: the policy does not decide about this stage"
            yield Problem(("stages", index, "confidence"), text)
    if calibrations is None:
        return
    for name, old in policy.setups.items():
        if name not in graph.models or facts[name].unknown:
            continue
        now = setup_hash(graph, name, base, calibrations, facts[name])
        if now != old:
            text = (
                f"{graph.policy!r} is stale: tuned for model {name!r} as {old[:12]}…, it is {now[:12]}… now "
                "(its file, prompt, samples, confidence or calibration); make outcomes anew and tune again"
            )
            yield Problem(("policy",), text)


def setup_hash(
    graph: Graph,
    name: str,
    base: Path,
    calibrations: Mapping[str, Calibration],
    facts: ModelFacts | None = None,
) -> str:
    """Return a SHA-256 (hex) over a model and over how its own stage asks and checks it.

    `facts` are what is known about the model; they are resolved if they are missing.

    Raises:
        ConfigError: a file of the model is missing, broken, or not downloaded yet.
    """
    stage = next((stage for stage in graph.stages if stage.ask == [name]), None)
    check = stage.confidence if stage is not None else None
    calibration = calibrations.get(stage.name) if stage is not None else None
    parts = [
        fingerprint(graph.models[name], base, facts),
        1 if stage is None else stage.samples,
        None if check is None else check.model_dump(mode="json", exclude={"calibration"}),
        None if calibration is None else calibration.model_dump(mode="json"),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _order(graph: Graph, policy: Policy) -> Iterator[Problem]:
    """Check that one stage asks each model alone, and that stages escalate in the policy's order."""
    line, name = [], graph.stages[0].name if graph.stages else None
    while name is not None and name not in line:
        line.append(name)
        name = graph.next_stage(name)
    positions = []
    for model in policy.chain:
        here = [stage.name for stage in graph.stages if stage.ask == [model]]
        if model not in graph.models:
            text = f"asks model {model!r}, which this graph does not have; {suggest(model, graph.models)}"
            yield Problem(("policy",), f"{graph.policy!r} {text}")
        elif len(here) != 1 or here[0] not in line:
            what = "no stage asks" if not here else "several stages ask" if len(here) > 1 else "a branch asks"
            text = f"decides about model {model!r}, but {what} it alone on the way from the first stage"
            yield Problem(("policy",), f"{graph.policy!r} {text}; give it one stage of its own")
        else:
            positions.append(line.index(here[0]))
    if len(positions) == len(policy.chain) and positions != sorted(positions):
        order = ", ".join(policy.chain)
        text = f"{graph.policy!r} asks in the order {order}; the stages of this graph escalate in another"
        yield Problem(("policy",), f"{text}; order them so, or tune with --chain")
    for index, stage in enumerate(graph.stages):
        if stage.gate is not None and stage.gate.to is not None:
            text = "a policy decides along one line of stages: branches cannot stand beside 'policy'"
            yield Problem(("stages", index, "gate", "to"), text)


def _stage(stage: Stage, policy: Policy) -> Iterator[Problem]:
    here = next(each for each in policy.stages if each.model == stage.ask[0])
    if stage.accept is not None:
        yield Problem(("accept",), "the policy decides what this stage accepts; remove 'accept'")
    if stage.gate is not None:
        yield Problem(("gate",), "the policy decides about this stage; remove its gate")
    if stage.canary is not None:
        text = (
            f"the policy decides about this stage and does not know model {stage.canary.model!r}; remove it"
        )
        yield Problem(("canary", "model"), f"{text}, or try the model as a shadow")
    if stage.audit_rate and isinstance(here.accept, str):
        text = f"the policy accepts {here.accept} at this stage, so there is nothing to audit; remove it"
        yield Problem(("audit_rate",), text)
    promises = [each.stage for each in policy.certificates if each.kind == "max_risk"]
    if stage.on_drift == "tighten" and here.model not in promises:
        text = (
            "the policy certifies no error among what this stage accepts (max_risk), so nothing can be kept"
        )
        yield Problem(("on_drift",), f"{text}; remove it, or tune with --max-risk")
    needs = {
        term.feature.model
        for each in policy.stages
        if each.score is not None
        for term in each.score.terms
        if term.feature.kind == "confidence"
    }
    if here.model in needs and stage.confidence is None:
        text = f"the policy's score needs the confidence of {here.model!r}; give the stage its 'confidence'"
        yield Problem((), text)
