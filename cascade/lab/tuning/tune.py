"""From labelled outcomes to a policy: which models take part, how they are judged, and when they are trusted.

Goals `max_risk` and `max_loss` are promises: half of the rows fit scores and design a path of thresholds from
safe to bold; the other half, never looked at before, says how far along that path the promise is kept. Goals
`budget` and `lambda` use all rows and promise nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from cascade.errors import ConfigError
from cascade.lab.tuning.design import Design, choose
from cascade.lab.tuning.promise import Refusal, certify, check_binary, refusal, renew
from cascade.lab.tuning.search import Thresholds
from cascade.policy.artifact import Certificate, Goal, Policy, PolicyStage, PromptGate
from cascade.policy.calibrate import fit
from cascade.policy.table import Outcomes

_MOST_MODELS = 7  # more are thinned to the most accurate for their cost
_LEAST_ROWS = 20


def tune(
    outcomes: Outcomes,
    goal: Goal,
    *,
    chain: Sequence[str] | None = None,
    seed: int = 0,
    old: Policy | None = None,
) -> Policy | Refusal:
    """Find the cheapest policy that keeps the goal, or say that the rows do not support it.

    Args:
        outcomes: rows with the outcome of every model; rows that lack one are left out. A failed call is an
            outcome: it is paid for, and the request goes on, as it does live.
        goal: what to keep.
        chain: models that may take part, in the order of asking; the last is the top model. Default: all,
            by mean cost, and the most accurate is the top model.
        seed: of the split and the folds.
        old: a policy that is kept, scores and thresholds, if it keeps the goal on these rows, which must be
            others than its own. It is tried on half of delta, the search has the other half.

    Raises:
        ConfigError: an unknown model, or too few complete rows.
    """
    table = _complete(outcomes, chain)
    promise = goal.delta is not None
    if promise:
        check_binary(table)
    if old is not None and promise:
        goal = goal.model_copy(update={"delta": (goal.delta or 0.0) / 2})
        if (made := renew(old, table, goal)) is not None:
            return _kept(old, outcomes, goal, made, len(table))
    order = np.random.default_rng(seed).permutation(len(table))
    half = len(table) // 2 if promise else len(table)
    fitting, held_out = table.take(np.sort(order[:half])), table.take(np.sort(order[half:]))
    if len(fitting) < _LEAST_ROWS:
        least = _LEAST_ROWS * (2 if promise else 1)
        raise ConfigError(f"{len(table)} complete rows; tuning needs at least {least}; label more")
    top = chain[-1] if chain else _most_accurate(fitting) if promise else None
    design = choose(fitting, goal, seed, top)
    found = None if design is None else certify(design, held_out, goal) if promise else (design.path[-1], ())
    if design is None or found is None:
        return refusal(fitting, goal, seed, top) if top else Refusal(_too_dear(fitting, goal), None)
    policy = _policy(design, found[0], found[1], fitting, goal)
    update = {"rows": len(table), "certified_rows": len(held_out), "seed": seed}
    return policy.model_copy(update=update | {"changes": () if old is None else _changes(old, policy)})


def _complete(outcomes: Outcomes, chain: Sequence[str] | None) -> Outcomes:
    """Return rows on which every candidate was run, and the candidates in the order they would be asked."""
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
    """Leave out models that are far from the best for their cost, if there are too many to try all chains."""
    while len(names) > _MOST_MODELS:
        accuracy = [float(table.models[name].credit.mean()) for name in names]
        margin = [accuracy[i] - max(accuracy[:i], default=0.0) for i in range(len(names))]
        names.pop(int(np.argmin(margin)))
    return names


def _most_accurate(table: Outcomes) -> str:
    """Return the top model; of equals the cheaper one."""
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
    """Write down one checked stage; its confidence map is fitted on out-of-fold scores."""
    name, model, at = design.chain[index], design.stages[index], thresholds.accept[index]
    low = thresholds.abstain[index] if thresholds.abstain else -math.inf
    if at == -math.inf or model is None:
        return PolicyStage(model=name, accept="always" if at == -math.inf else "never")
    if at == math.inf and low == -math.inf:
        return PolicyStage(model=name, accept="never")
    known = np.isfinite(model.held_out)
    right = fitting.models[name].quality[known] >= 1.0
    return PolicyStage(
        model=name,
        accept="never" if at == math.inf else at,
        abstain_below=None if not math.isfinite(low) else low,
        score=model.score,
        confidence=fit("isotonic", model.held_out[known].tolist(), right.tolist()),
    )


def _kept(old: Policy, new: Outcomes, goal: Goal, made: tuple[Certificate, ...], rows: int) -> Policy:
    """Return an old policy with certificates from new rows, none of which it was fitted on."""
    update = {"goal": goal, "certificates": made, "rows": rows, "fitted_rows": 0, "certified_rows": rows}
    changes = ("models, scores and thresholds are kept; certificates are from the new rows",)
    fitted = datetime.now(UTC).date().isoformat()
    return old.model_copy(update=update | {"data_sha256": new.sha256, "fitted": fitted, "changes": changes})


def _changes(old: Policy, new: Policy) -> tuple[str, ...]:
    found = []
    if old.chain != new.chain:
        found.append(f"models: {', '.join(old.chain)} → {', '.join(new.chain)}")
    before = {stage.model: stage.accept for stage in old.stages}
    found += [
        f"{stage.model}: accept {_shown(before[stage.model])} → {_shown(stage.accept)}"
        for stage in new.stages
        if stage.model in before and before[stage.model] != stage.accept
    ]
    if (old.gate is None) != (new.gate is None):
        found.append("gate: " + ("added" if old.gate is None else "dropped"))
    return (
        (*found, "scores were fitted anew") if found else ("scores were fitted anew, to the same thresholds",)
    )


def _shown(accept: float | str) -> str:
    return accept if isinstance(accept, str) else f"{accept:.4f}"
