"""Raising the threshold of a stage that drifted to one that its audits support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

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

_DELTA = 0.05  # of a stage without a certificate


class Audited(NamedTuple):
    """An answer that was drawn for an audit: its confidence or policy score, and whether it was wrong."""

    run: str
    value: float
    wrong: bool


def reset_thresholds(graph: str | Path) -> bool:
    """Forget the raised thresholds of a graph file; return whether there were any."""
    path = state_path(Path(graph))
    known = path.exists()
    path.unlink(missing_ok=True)
    return known


def tighten(
    loaded: LoadedGraph, drifted: Mapping[str, tuple[str, Sequence[Audited]]]
) -> dict[str, Tightened]:
    """Raise the thresholds of drifted stages, and keep them in the graph's drift file.

    Args:
        loaded: the graph.
        drifted: stage → the run of the alarm, and the audited answers since then.

    Returns:
        Stage → the threshold that holds now.
    """
    path = state_path(loaded.path)
    state = dict(read_state(path))
    for name, (alarm, audits) in drifted.items():
        old = state.get(name)
        if old is None or old.alarm != alarm or len(audits) > old.audited:  # there is news
            state[name] = _raised(loaded, loaded.graph.stage(name), alarm, audits, old)
    if drifted:
        write_state(path, loaded.graph.name, state)
    return {name: state[name] for name in drifted}


def promised(loaded: LoadedGraph, stage: Stage) -> tuple[float, float, float]:
    """Return the stage's own threshold, the error that it promises among the accepted, and delta.

    A policy promises what its certificate says. A confidence of at least `accept` promises an error of at
    most 1 − `accept`.
    """
    policy = loaded.policy
    if policy is not None and stage.ask and stage.ask[0] in policy.chain:
        tuned = policy.stages[policy.chain.index(stage.ask[0])]
        for certificate in policy.certificates:
            is_risk = certificate.stage == tuned.model and certificate.kind == "max_risk"
            if is_risk and isinstance(tuned.accept, float):
                return tuned.accept, certificate.alpha, certificate.delta
    accept = stage.accept or 0.0
    return accept, min(max(1.0 - accept, 1e-6), 1.0 - 1e-6), _DELTA


def _raised(
    loaded: LoadedGraph, stage: Stage, alarm: str, audits: Sequence[Audited], old: Tightened | None
) -> Tightened:
    was, alpha, delta = promised(loaded, stage)
    look = 1 if old is None or old.alarm != alarm else old.looks + 1
    values, wrong = [audit.value for audit in audits], [audit.wrong for audit in audits]
    threshold = supported(values, wrong, min_accept=was, alpha=alpha, delta=share_of(delta, look))
    return Tightened(
        was=was, accept=threshold.accept, alpha=alpha, delta=delta, bound=threshold.bound,
        rows=threshold.rows, errors=threshold.errors, audited=len(audits), looks=look, alarm=alarm,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
