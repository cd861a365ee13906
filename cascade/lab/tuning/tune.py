"""From labelled outcomes to a policy: which models take part, how they are judged, and when they are trusted.

Goals `max_risk` and `max_loss` are promises: half of the rows fit scores and design a path of thresholds from
safe to bold; the other half, never looked at before, says how far along that path the promise is kept. Goals
`budget` and `lambda` use all rows and promise nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cascade.config.load import load_graph
from cascade.config.policies import setup_hash
from cascade.errors import ConfigError
from cascade.lab.tables.outcomes import read_outcomes
from cascade.lab.tuning.design import Design, choose
from cascade.lab.tuning.promise import Refusal, certify, check_binary, refusal, renew
from cascade.policy.artifact import (
    Certificate,
    Goal,
    Policy,
    PolicyStage,
    PromptGate,
    read_policy,
    write_policy,
)
from cascade.policy.calibrate import fit
from cascade.policy.table import Outcomes
from cascade.policy.thresholds import Thresholds

_MAX_MODELS = 7  # more are thinned to the most accurate for their cost
_MIN_ROWS = 20


def tune(
    outcomes: Outcomes | str | Path,
    goal: Goal,
    *,
    chain: Sequence[str] | None = None,
    seed: int = 0,
    old: Policy | str | Path | None = None,
    graph: str | Path | None = None,
    out: str | Path | None = None,
) -> Policy | Refusal:
    """Find the cheapest policy that keeps the goal, or say that the rows do not support it.

    Args:
        outcomes: a table (or its file) with the outcome of every model; rows that lack one are left out. A
            failed call is an outcome: it is paid for, and the request goes on, as it does live.
        goal: what to keep.
        chain: models that may take part, in the order of asking; the last is the top model. Default: all,
            by mean cost, and the most accurate is the top model.
        seed: seed of the split and the folds.
        old: an earlier policy (or its file). Its scores and thresholds are kept if they keep the goal on
            these rows, which it must not have been tuned on. Testing it takes half of delta; the search has
            the other half.
        graph: the graph file that made the outcomes. The policy then records what each model is, and graphs
            in which one has changed refuse it.
        out: the file to write the policy to; a refusal writes nothing.

    Raises:
        ConfigError: a model is unknown, there are too few complete rows, or a file is invalid.
        RequestError: the outcome table cannot be read.
    """
    if goal.kind in ("max_risk", "max_loss") and goal.delta is None:
        raise ConfigError(f"goal {goal.kind} is a promise; give 'delta', the probability that it may fail")
    if isinstance(old, str | Path):
        old = read_policy(old)
    setups = {} if graph is None else _setups(graph)
    if isinstance(outcomes, str | Path):
        outcomes = read_outcomes(outcomes)
    policy = _find_policy(outcomes, goal, chain, seed, old)
    if isinstance(policy, Refusal):
        return policy
    known = {name: setups[name] for name in policy.chain if name in setups}
    policy = policy.model_copy(update={"setups": known})
    if out is not None:
        write_policy(policy, out)
    return policy


def _setups(graph: str | Path) -> dict[str, str]:
    """Return a hash of what each model of a graph is now."""
    loaded = load_graph(graph, tuned=False, tightened=False)
    return {
        name: setup_hash(loaded.graph, name, loaded.base, loaded.calibrations, loaded.facts[name])
        for name in loaded.graph.models
    }


def _find_policy(
    outcomes: Outcomes, goal: Goal, chain: Sequence[str] | None, seed: int, old: Policy | None
) -> Policy | Refusal:
    table = _complete(outcomes, chain)
    promise = goal.delta is not None
    if promise:
        check_binary(table)
    if old is not None and promise:
        goal = goal.model_copy(update={"delta": (goal.delta or 0.0) / 2})
        if (certificates := renew(old, table, goal)) is not None:
            return _kept(old, outcomes, goal, certificates, len(table))
    order = np.random.default_rng(seed).permutation(len(table))
    half = len(table) // 2 if promise else len(table)
    fitting, held_out = table.take(np.sort(order[:half])), table.take(np.sort(order[half:]))
    if len(fitting) < _MIN_ROWS:
        min_rows = _MIN_ROWS * (2 if promise else 1)
        raise ConfigError(f"{len(table)} complete rows; tuning needs at least {min_rows}; label more")
    top = chain[-1] if chain else _most_accurate(fitting) if promise else None
    design = choose(fitting, goal, seed, top)
    chosen: tuple[Thresholds, tuple[Certificate, ...]] | None = None
    if design is not None:
        chosen = certify(design, held_out, goal) if promise else (design.path[-1], ())
    if design is None or chosen is None:
        return refusal(fitting, goal, seed, top) if top else Refusal(_too_dear(fitting, goal), None)
    policy = _policy(design, *chosen, fitting, goal)
    update = {"rows": len(table), "certified_rows": len(held_out), "seed": seed}
    return policy.model_copy(update=update | {"changes": () if old is None else _changes(old, policy)})


def _complete(outcomes: Outcomes, chain: Sequence[str] | None) -> Outcomes:
    """Return the rows on which every candidate was run, with the candidates in the order of asking."""
    known = ", ".join(outcomes.models)
    if missing := [name for name in chain or () if name not in outcomes.models]:
        raise ConfigError(f"unknown model {missing[0]!r} in the chain; known: {known}")
    names = list(chain or outcomes.models)
    whole = np.ones(len(outcomes), dtype=bool)
    for name in names:
        model = outcomes.models[name]
        whole &= np.isfinite(model.credit) & np.isfinite(model.cost_usd)
    rows = np.flatnonzero(whole)
    if not len(rows):
        raise ConfigError(
            f"no row has quality and cost_usd of all of {', '.join(names)}; give a shorter --chain"
        )
    table = outcomes.take(rows)
    if chain is None:
        names.sort(key=lambda name: float(table.models[name].cost_usd.mean()))
        names = _thinned(table, names)
    return Outcomes(table.ids, table.prompts, {name: table.models[name] for name in names}, {}, table.sha256)


def _thinned(table: Outcomes, names: list[str]) -> list[str]:
    """Drop the models that gain least over cheaper ones until there are few enough to try all chains."""
    while len(names) > _MAX_MODELS:
        accuracy = [float(table.models[name].credit.mean()) for name in names]
        margin = [accuracy[i] - max(accuracy[:i], default=0.0) for i in range(len(names))]
        names.pop(int(np.argmin(margin)))
    return names


def _most_accurate(table: Outcomes) -> str:
    """Return the most accurate model; of equals, the cheaper one."""
    return max(table.models, key=lambda name: float(table.models[name].credit.mean()))


def _too_dear(table: Outcomes, goal: Goal) -> str:
    cheapest = min(float(model.cost_usd.mean()) for model in table.models.values())
    return f"a mean of ${goal.value:g} a request buys nothing: the cheapest model costs ${cheapest:.3g}"


def _policy(
    design: Design,
    thresholds: Thresholds,
    certificates: tuple[Certificate, ...],
    fitting: Outcomes,
    goal: Goal,
) -> Policy:
    gate = None
    if design.gate is not None and math.isfinite(thresholds.skip_at):
        gate = PromptGate(score=design.gate.score, skip_at=thresholds.skip_at, to=design.chain[-1])
    stages: list[PolicyStage] = []
    checked = len(design.chain) - 1 if thresholds.skip_at > -math.inf else 0  # −inf: all go to the last model
    for index in range(checked):
        stages.append(_stage(design, thresholds, index, fitting))
        if stages[-1].accept == "always":
            break
    if gate is not None or not stages or stages[-1].accept != "always":
        stages.append(PolicyStage(model=design.chain[-1], accept="always"))
    return Policy(
        goal=goal, gate=gate, stages=tuple(stages), certificates=certificates, rows=len(fitting),
        fitted_rows=len(fitting), certified_rows=0, data_sha256=fitting.sha256, seed=0,
        fitted=datetime.now(UTC).date().isoformat(),
    )  # fmt: skip


def _stage(design: Design, thresholds: Thresholds, index: int, fitting: Outcomes) -> PolicyStage:
    """Return one checked stage; its confidence map is fitted on out-of-fold scores."""
    name, model, accept = design.chain[index], design.stages[index], thresholds.accept[index]
    abstain_below = thresholds.abstain[index] if thresholds.abstain else -math.inf
    if accept == -math.inf or model is None:
        return PolicyStage(model=name, accept="always" if accept == -math.inf else "never")
    if accept == math.inf and abstain_below == -math.inf:
        return PolicyStage(model=name, accept="never")
    known = np.isfinite(model.held_out)
    right = fitting.models[name].quality[known] >= 1.0
    return PolicyStage(
        model=name,
        accept="never" if accept == math.inf else accept,
        abstain_below=abstain_below if math.isfinite(abstain_below) else None,
        score=model.score,
        confidence=fit("isotonic", model.held_out[known].tolist(), right.tolist()),
    )


def _kept(old: Policy, new: Outcomes, goal: Goal, certificates: tuple[Certificate, ...], rows: int) -> Policy:
    """Return an old policy with certificates from new rows, none of which it was fitted on."""
    update = {
        "goal": goal,
        "certificates": certificates,
        "rows": rows,
        "fitted_rows": 0,
        "certified_rows": rows,
    }
    changes = ("models, scores and thresholds are kept; certificates are from the new rows",)
    fitted = datetime.now(UTC).date().isoformat()
    return old.model_copy(update=update | {"data_sha256": new.sha256, "fitted": fitted, "changes": changes})


def _changes(old: Policy, new: Policy) -> tuple[str, ...]:
    changes = []
    if old.chain != new.chain:
        changes.append(f"models: {', '.join(old.chain)} → {', '.join(new.chain)}")
    before = {stage.model: stage.accept for stage in old.stages}
    changes += [
        f"{stage.model}: accept {_shown(before[stage.model])} → {_shown(stage.accept)}"
        for stage in new.stages
        if stage.model in before and before[stage.model] != stage.accept
    ]
    if (old.gate is None) != (new.gate is None):
        changes.append("gate: " + ("added" if old.gate is None else "dropped"))
    return (
        (*changes, "scores were fitted anew")
        if changes
        else ("scores were fitted anew, to the same thresholds",)
    )


def _shown(accept: float | str) -> str:
    return accept if isinstance(accept, str) else f"{accept:.4f}"
