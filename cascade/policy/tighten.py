"""After drift: the smallest threshold, never below the stage's own, that audited answers still support.

Thresholds apply to the confidence, or to the score of a policy. `cascade monitor` keeps them in a JSON file
beside the graph, which is read when the graph is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from cascade.files import read_record, write_whole
from cascade.records import RaisedThreshold, Record

REFUSE = math.nextafter(1.0, 2.0)  # no confidence reaches it
_REDO = "make it anew with 'cascade monitor', or remove it to go back to the graph's thresholds"


class Tightened(Record):
    """A stage whose threshold moved from `was` to `accept` after the drift alarm in run `alarm`.

    Of `rows` audited answers that reach `accept`, `errors` were wrong, which bounds the error among the
    accepted by `bound`; it must be at most `alpha` with probability 1 − `delta`, however often it is tested.
    `looks` counts the tests. A stage that accepts nothing has an `accept` above 1, and no rows.
    """

    was: float = Field(ge=0.0)
    accept: float = Field(ge=0.0)
    alpha: float = Field(gt=0.0, lt=1.0)
    delta: float = Field(gt=0.0, lt=1.0)
    bound: float = Field(ge=0.0, le=1.0)
    rows: int = Field(ge=0)
    errors: int = Field(ge=0)
    audited: int = Field(ge=0)
    looks: int = Field(ge=1)
    alarm: str
    at: str

    @property
    def fact(self) -> RaisedThreshold:
        """What the trace records about a decision by this threshold."""
        accept: float | None = self.accept
        needed: int | None = None
        if self.accept >= REFUSE:
            share = share_of(self.delta, self.looks + 1)
            accept, needed = None, math.ceil(math.log(share) / math.log1p(-self.alpha))
        return RaisedThreshold(
            alarm=self.alarm, was=self.was, accept=accept, rows=self.rows, errors=self.errors,
            audited=self.audited, rows_needed=needed,
        )  # fmt: skip


class Tightenings(Record):
    """The state of a graph: stage → its tightened threshold."""

    version: int = 1
    graph: str
    stages: dict[str, Tightened] = Field(default_factory=dict)


class Supported(NamedTuple):
    """A threshold and the audited rows that reach it."""

    accept: float
    rows: int
    errors: int
    bound: float


def state_path(graph: Path) -> Path:
    """Return the file that holds the tightened thresholds of the graph file `graph`."""
    return graph.with_suffix(".drift.json")


def read_state(path: Path) -> Mapping[str, Tightened]:
    """Return stage → tightened threshold; none if there is no file.

    Raises:
        ConfigError: the file is broken.
    """
    return read_record(Tightenings, path, "drift", _REDO).stages if path.exists() else {}


def write_state(path: Path, graph: str, stages: Mapping[str, Tightened]) -> None:
    """Write the state of a graph; a reader sees the old file or the new one, never a part."""
    state = Tightenings(graph=graph, stages=dict(stages))
    write_whole(json.dumps(state.model_dump(mode="json"), indent=1) + "\n", path, "drift")


def share_of(delta: float, look: int) -> float:
    """Return the share of `delta` that test number `look` (from 1) may spend; all shares sum to `delta`."""
    return delta / (look * (look + 1))


def supported(
    values: Sequence[float], wrong: Sequence[bool], *, min_accept: float, alpha: float, delta: float
) -> Supported:
    """Return the smallest threshold from `min_accept` on above which at most `alpha` errs, at 1 − `delta`.

    Thresholds are tested from the safest down, by the exact bound of Clopper and Pearson (1934), until the
    first failure. Which ones are tested depends on the values alone, so each is tested at the full `delta`
    (fixed-sequence testing). The first has as many rows as the promise needs without an error.

    Args:
        values: confidence or score of a random sample of what the stage would accept.
        wrong: whether each was wrong.
        min_accept: the threshold that holds without drift.
        alpha: the error among the accepted that is promised.
        delta: the probability with which the promise may be broken.
    """
    from cascade.policy.bounds import risk_upper, rows_needed

    ranked = sorted(zip(values, wrong, strict=True), key=lambda item: -item[0])
    ranked = [item for item in ranked if item[0] >= min_accept]
    first, errors = rows_needed(alpha, delta), 0
    best = Supported(REFUSE, 0, 0, 1.0)
    for rows, (value, bad) in enumerate(ranked, start=1):
        errors += bad
        cuts = rows == len(ranked) or ranked[rows][0] < value  # a threshold takes all equal values
        if first is None or rows < first or not cuts:
            continue
        bound = risk_upper(errors, rows, delta)
        if bound > alpha:
            break
        best = Supported(min_accept if rows == len(ranked) else value, rows, errors, bound)
    return best
