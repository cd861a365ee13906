"""Promoting a stage's shadow to its model, once the stored runs prove that it is not worse."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cascade.config.edit import REMOVED, edit_yaml
from cascade.config.load import LoadedGraph, load_graph
from cascade.config.messages import suggest
from cascade.config.promotions import (
    Promotion,
    history_path,
    holding,
    now,
    sha256,
    undo_promotion,
    write_promotion,
)
from cascade.config.source import read_bytes
from cascade.errors import ConfigError, RequestError
from cascade.explain.formatting import parse_since
from cascade.lab.monitoring.pairs import PairedRows, paired_rows
from cascade.policy.eprocess import difference_interval, not_worse, reached, rows_needed, worse
from cascade.policy.tighten import read_state, state_path
from cascade.spec.kinds import Loc
from cascade.spec.schema import Stage
from cascade.trace import RunFilter, default_url, history, newest_grades

Verdict = Literal["not worse", "worse", "open"]
_MAX_LOG = 700.0


@dataclass(frozen=True)
class PromotionTest:
    """What the stored runs say about a promotion.

    Attributes:
        graph: `name@digest`, whose runs were read.
        stage: the stage.
        rows: the paired rows.
        epsilon: the loss of accuracy that is allowed.
        delta: the probability of promoting a model that loses more, however often one looks.
    """

    graph: str
    stage: str
    rows: PairedRows
    epsilon: float
    delta: float

    @property
    def verdict(self) -> Verdict:
        """Whether it is proved that the new model is not worse by epsilon, or that it is."""
        if reached(not_worse(self.rows.pairs, self.epsilon), self.delta):
            return "not worse"
        return "worse" if reached(worse(self.rows.pairs, self.epsilon), self.delta) else "open"

    @property
    def e_value(self) -> float:
        """The evidence that it is not worse; 1 / delta suffices."""
        import math

        return math.exp(min(not_worse(self.rows.pairs, self.epsilon), _MAX_LOG))

    @property
    def interval(self) -> tuple[float, float]:
        """An interval of the difference in accuracy, new minus old, valid however often one looks."""
        return difference_interval(self.rows.pairs, self.delta)

    @property
    def rows_needed(self) -> int | None:
        """How many more rows like these it takes; None if they never suffice."""
        return rows_needed(self.rows.pairs, self.epsilon, self.delta)

    def as_json(self) -> dict[str, Any]:
        """Return all figures as plain JSON."""
        rows, pairs = self.rows, self.rows.pairs
        return {
            "graph": self.graph, "stage": self.stage, "old": rows.old, "new": rows.new,
            "epsilon": self.epsilon, "delta": self.delta, "verdict": self.verdict, "e_value": self.e_value,
            "rows": int(pairs.rows), "worse": int(pairs.worse), "equal": int(pairs.equal),
            "better": int(pairs.better), "difference": pairs.mean, "interval": list(self.interval),
            "told_by": dict(rows.told_by), "disagreed": rows.disagreed, "unproved": rows.unproved,
            "failed": rows.failed, "uncounted": rows.uncounted, "left_out": dict(rows.left_out),
            "rows_needed": self.rows_needed,
        }  # fmt: skip


@dataclass(frozen=True)
class Promoted:
    """A promotion that was made, or would be (`dry_run`), or was refused.

    Attributes:
        test: the evidence.
        done: whether the graph file was rewritten.
        diff: how the file changes, as a unified diff.
        history: the file that a rollback reads.
    """

    test: PromotionTest
    done: bool
    diff: str
    history: Path


def promote(
    graph: str | Path,
    stage: str,
    to: str,
    *,
    epsilon: float = 0.02,
    delta: float = 0.05,
    calibration: str | None = None,
    accept: float | None = None,
    since: str | None = None,
    dry_run: bool = False,
    trace_db: str | None = None,
) -> Promoted:
    """Put a stage's shadow in place of its model, if the stored runs prove that it is not worse.

    The file is rewritten: the stage asks the new model, the old one becomes its shadow, and a canary of the
    new model goes. Everything else stays as it is written. `rollback` undoes it.

    Args:
        graph: the graph file.
        stage: the stage.
        to: the model, which must be the stage's shadow.
        epsilon: how much less accurate it may be.
        delta: the probability of promoting a model that is worse by more, however often this is called.
        calibration: its calibration file, as the graph is to name it; default: its canary's.
        accept: the stage's threshold from now on; default: its canary's, else the stage's own.
        since: read runs that started then or later, ISO 8601; default: all of this version of the graph.
        dry_run: change nothing.
        trace_db: the trace store, a SQLAlchemy URL or a file; default: the usual one.

    Raises:
        ConfigError: the graph is invalid, the model is not the stage's shadow, a calibration is missing, or
            the changed graph would not pass `cascade check`.
        RequestError: `epsilon`, `delta` or `since` is wrong.
        TraceError: the trace store cannot be read.
    """
    if not (0 < epsilon < 1 and 0 < delta < 1):
        raise RequestError(f"epsilon is {epsilon:g}, delta {delta:g}; expected numbers between 0 and 1")
    path = Path(graph)
    data = read_bytes(path)
    loaded = load_graph(path, data=data, tightened=False)
    chosen = _shadowed(loaded, stage, to)
    changes = _changes(loaded, chosen, to, calibration, accept)
    after = edit_yaml(data, str(path), changes)
    load_graph(path, data=after, tightened=False)
    where = RunFilter(graph=loaded.version, since=parse_since(since))
    url = default_url() if trace_db is None else trace_db
    rows = paired_rows(chosen, to, history(url, where), newest_grades(url, where))
    test = PromotionTest(loaded.version, stage, rows, epsilon, delta)
    done = test.verdict == "not worse" and not dry_run
    if done:
        note = Promotion(
            stage=stage, old=chosen.ask[0], new=to, at=now(), epsilon=epsilon, delta=delta,
            rows=int(rows.pairs.rows), before=data.decode(), before_sha256=sha256(data),
            after_sha256=sha256(after),
        )  # fmt: skip
        write_promotion(path, data, after, note)
    return Promoted(test, done, _diff(path, data, after), history_path(path))


def rollback(graph: str | Path, *, why: str = "asked for", dry_run: bool = False) -> tuple[Promotion, str]:
    """Undo the newest promotion of a graph file; return it and how the file changes, as a unified diff.

    Args:
        graph: the graph file.
        why: the reason, for the history.
        dry_run: change nothing.

    Raises:
        ConfigError: nothing is promoted, or the file was edited since, which would be lost.
    """
    path = Path(graph)
    data = read_bytes(path)
    promotion = holding(path) if dry_run else undo_promotion(path, why)
    if promotion is None:
        raise ConfigError(f"{path}: no promotion is in force, so there is nothing to undo")
    return promotion, _diff(path, data, promotion.before.encode())


def _shadowed(loaded: LoadedGraph, name: str, to: str) -> Stage:
    """Return the stage whose shadow is to be promoted."""
    names = [stage.name for stage in loaded.graph.stages]
    if name not in names:
        raise ConfigError(f"{loaded.path}: unknown stage {name!r}; {suggest(name, names)}")
    stage = loaded.graph.stage(name)
    if to not in loaded.graph.models:
        raise ConfigError(f"{loaded.path}: unknown model {to!r}; {suggest(to, loaded.graph.models)}")
    if stage.shadow is None or stage.shadow.model != to:
        raise ConfigError(
            f"{loaded.path}: model {to!r} is not the shadow of stage {name!r}, so nothing was measured; give "
            f"the stage 'shadow: {{model: {to}, share: 0.1}}' and an 'audit_rate', and wait for runs"
        )
    if name in read_state(state_path(loaded.path)):
        raise ConfigError(
            f"{loaded.path}: the threshold of stage {name!r} is raised since drift, for its own model; find "
            "out what drifted, then forget it with 'cascade monitor GRAPH --reset'"
        )
    return stage


def _changes(
    loaded: LoadedGraph, stage: Stage, to: str, calibration: str | None, accept: float | None
) -> dict[Loc, Any]:
    """Return what changes in the file: place → value."""
    here: Loc = ("stages", [each.name for each in loaded.graph.stages].index(stage.name))
    changes: dict[Loc, Any] = {(*here, "ask", 0): to, (*here, "shadow", "model"): stage.ask[0]}
    canary = stage.canary if stage.canary is not None and stage.canary.model == to else None
    if canary is not None:
        calibration, accept = calibration or canary.calibration, canary.accept if accept is None else accept
        changes[*here, "canary"] = REMOVED
    check = stage.confidence
    if check is not None and check.calibration is not None:
        if calibration is None:
            raise ConfigError(
                f"{loaded.path}: stage {stage.name!r} is calibrated for {stage.ask[0]!r}; give --calibration "
                f"FILE for {to!r}, made by: cascade calibrate GRAPH {stage.name} --model {to} --data ROWS "
                "--out FILE"
            )
        changes[*here, "confidence", "calibration"] = calibration
    elif calibration is not None:
        raise ConfigError(f"{loaded.path}: stage {stage.name!r} names no calibration that could be replaced")
    if accept is not None and accept != stage.accept:
        changes[*here, "accept"] = accept
    return changes


def _diff(path: Path, before: bytes, after: bytes) -> str:
    old, new = (data.decode("utf-8-sig").splitlines(keepends=True) for data in (before, after))
    return "".join(difflib.unified_diff(old, new, str(path), str(path), n=1))
