"""What `cascade monitor` does about a stage that drifted: raise its threshold to what audits support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cascade.config.load import LoadedGraph
from cascade.policy.tighten import (
    Tightened,
    read_state,
    share_of,
    state_path,
    supported,
    write_state,
)
from cascade.spec.schema import Stage

DELTA = 0.05  # of a stage without a certificate


class Audited(NamedTuple):
    """An answer that would have been accepted and was drawn for an audit: its value, and whether it erred."""

    run: str
    value: float
    wrong: bool


def reset(graph: Path) -> bool:
    """Forget the raised thresholds of a graph file; return whether there were any."""
    path = state_path(graph)
    known = path.exists()
    path.unlink(missing_ok=True)
    return known


def tighten(
    loaded: LoadedGraph, drifted: Mapping[str, tuple[str, Sequence[Audited]]]
) -> dict[str, dict[str, Any]]:
    """Raise the thresholds of drifted stages, and keep them in the graph's drift file.

    Args:
        loaded: the graph.
        drifted: stage → the run of the alarm, and the audited answers since then.

    Returns:
        Stage → what holds now, as plain JSON.
    """
    path = state_path(loaded.path)
    state = dict(read_state(path))
    for name, (alarm, audits) in drifted.items():
        old = state.get(name)
        if old is None or old.alarm != alarm or len(audits) > old.audited:  # else nothing new to look at
            state[name] = _raised(loaded, loaded.graph.stage(name), alarm, audits, old)
    if drifted:
        write_state(path, loaded.graph.name, state)
    return {name: state[name].model_dump(mode="json") for name in drifted}


def promised(loaded: LoadedGraph, stage: Stage) -> tuple[float, float, float]:
    """Return threshold, promised error among the accepted, and delta, as graph or policy say.

    A policy's are those of its certificate; a confidence of at least `accept` errs at most 1 − `accept`.
    """
    policy = loaded.policy
    if policy is not None and stage.ask and stage.ask[0] in policy.chain:
        here = policy.stages[policy.chain.index(stage.ask[0])]
        for each in policy.certificates:
            if each.stage == here.model and each.kind == "max_risk" and isinstance(here.accept, float):
                return here.accept, each.alpha, each.delta
    accept = stage.accept or 0.0
    return accept, min(max(1.0 - accept, 1e-6), 1.0 - 1e-6), DELTA


def _raised(
    loaded: LoadedGraph, stage: Stage, alarm: str, audits: Sequence[Audited], old: Tightened | None
) -> Tightened:
    was, alpha, delta = promised(loaded, stage)
    look = 1 if old is None or old.alarm != alarm else old.looks + 1
    values, wrong = [each.value for each in audits], [each.wrong for each in audits]
    found = supported(values, wrong, least=was, alpha=alpha, delta=share_of(delta, look))
    return Tightened(
        was=was, accept=found.accept, alpha=alpha, delta=delta, bound=found.bound, rows=found.rows,
        errors=found.errors, audited=len(audits), looks=look, alarm=alarm,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
