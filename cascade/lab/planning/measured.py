"""What stored runs of a graph tell a plan: volume, calls, cost, time and privacy, each with resamples."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import NormalDist

import numpy as np

from cascade.explain.formatting import parse_since
from cascade.lab.evaluation.metrics import Column, resampled
from cascade.policy.costs import CostEstimate
from cascade.policy.savings import Alone, PricedRun, Savings
from cascade.records import Call, Result
from cascade.trace import RunFilter, default_url, history

RESAMPLES = 1000
_SHORT = 1.0  # days: stored runs of less time tell no volume
_NAMES = {"usd": "usd_a_call"}
_Z = NormalDist().inv_cdf(0.975)


@dataclass
class Measured:
    """What the runs tell.

    Attributes:
        runs: how many there are.
        days: from the first to the last.
        draws: name → its mean over the runs (first), then over resamples of them: of each model `NAME.calls`
            (a request), `NAME.usd_a_call`, `NAME.seconds`, `NAME.tokens_in` and `NAME.tokens_out` (a call),
            `NAME.usd_a_request` (of the strongest, if asked alone), `other_usd` and `other_seconds` (a
            request, of calls of no tier), `leaves` (share of runs with a remote call), `answered` (share with
            an answer), `requests_a_day`.
        seconds: model → seconds of each of its answers, in order.
        run_seconds: of each run.
        savings: against the strongest model alone, as everywhere.
    """

    runs: int
    days: float
    draws: dict[str, Column]
    seconds: dict[str, list[float]]
    run_seconds: list[float]
    savings: Savings | None


@dataclass
class _Rows:
    """A row of numbers for each run, and what is not a mean."""

    names: Sequence[str]
    columns: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    priced: list[PricedRun] = field(default_factory=list)
    starts: list[datetime] = field(default_factory=list)

    def add(self, result: Result, strongest: str, graph: str) -> None:
        row: defaultdict[str, float] = defaultdict(float)
        for call in (call for step in result.trace for call in step.calls):
            self._add_call(row, call)
        row["run_seconds"] = result.seconds
        row["answered"] = float(result.text is not None)
        baseline = result.baseline
        if baseline is not None and baseline.model == strongest:
            self.priced.append(PricedRun(graph, result.cost_usd, baseline))
            row["priced"], row["baseline"] = 1, baseline.cost_usd
        for name, values in self.columns.items():
            values.append(row[name])
        self.starts.append(_time(result.started))

    def _add_call(self, row: defaultdict[str, float], call: Call) -> None:
        row["leaves"] = max(row["leaves"], int(not call.local))
        if call.model not in self.names:
            row["other_usd"] += call.cost_usd
            row["other_seconds"] += call.seconds if call.local else 0
            return
        parts = {
            "calls": 1, "usd": call.cost_usd, "seconds": call.seconds, "tokens_in": call.tokens_in,
            "tokens_out": call.tokens_out,
        }  # fmt: skip
        for key, value in parts.items():
            row[f"{call.model}.{key}"] += value
        if call.error is None and call.role == "answer":
            self.seconds.setdefault(call.model, []).append(call.seconds)


def measure_runs(
    graph: str, models: Sequence[str], *, since: str | None, trace_db: str | None, seed: int
) -> Measured | None:
    """Return what the stored runs of `graph` (its name) tell of `models`, the strongest last; None: no runs.

    Raises:
        RequestError: `since` is no time.
        TraceError: the trace store cannot be read.
    """
    keys = [f"{m}.{key}" for m in models for key in ("calls", "usd", "seconds", "tokens_in", "tokens_out")]
    keys += ["other_usd", "other_seconds", "leaves", "answered", "run_seconds", "priced", "baseline"]
    rows = _Rows(models, {key: [] for key in keys})
    url = default_url() if trace_db is None else trace_db
    for result in history(url, RunFilter(graph=graph, since=parse_since(since))):
        if result.status != "waiting":
            rows.add(result, models[-1], graph)
    if not rows.starts:
        return None
    columns = {name: np.array(values, dtype=float) for name, values in rows.columns.items()}
    means = resampled(columns, resamples=RESAMPLES, seed=seed)
    draws = {name: means[name] for name in ("other_usd", "other_seconds", "leaves", "answered")}
    for model in models:
        draws |= _of_model(model, means)
    alone = Alone(rows.priced)
    known = [run for run in rows.priced if alone.known(run)]
    if known:
        draws[f"{models[-1]}.usd_a_request"] = _baseline(means, alone.total(known), len(known), seed)
    days = (max(rows.starts) - min(rows.starts)) / timedelta(days=1)
    if days >= _SHORT:
        draws["requests_a_day"] = _volume(rows.starts, seed)
    return Measured(
        len(rows.starts), days, draws, rows.seconds, rows.columns["run_seconds"], alone.savings(rows.priced)
    )


def _of_model(model: str, means: Mapping[str, Column]) -> dict[str, Column]:
    """Return the means of a model's calls; a resample without any has those of the sample."""
    calls = means[f"{model}.calls"]
    draws = {f"{model}.calls": calls}
    if calls[0] == 0:
        return draws
    for key in ("usd", "seconds", "tokens_in", "tokens_out"):
        total = means[f"{model}.{key}"]
        whole = np.full_like(calls, total[0] / calls[0])
        draws[f"{model}.{_NAMES.get(key, key)}"] = np.divide(total, calls, out=whole, where=calls > 0)
    return draws


def _baseline(means: Mapping[str, Column], total: CostEstimate, runs: int, seed: int) -> Column:
    """Return the mean cost of a request at the strongest model, with two errors: the runs', and the fit's.

    The figure is that of `policy.savings`; its interval there tells how far the fit may be off.
    """
    priced = means["priced"]
    shape = np.divide(means["baseline"], priced, out=np.ones_like(priced), where=priced > 0)
    relative = shape / shape[0] if shape[0] > 0 else np.ones_like(shape)
    width = math.log(total.high_usd / total.low_usd) / (2 * _Z) if total.low_usd > 0 else 0.0
    factor = np.exp(width * np.random.default_rng(seed + 1).standard_normal(len(shape)))
    factor[0] = 1.0
    return np.asarray(total.cost_usd / runs * relative * factor)


def _volume(starts: Sequence[datetime], seed: int) -> Column:
    """Return requests a day: the mean over whole days before the last run, then over resamples of these."""
    last = max(starts)
    ages = [int((last - start) / timedelta(days=1)) for start in starts]
    whole = int((last - min(starts)) / timedelta(days=1))
    counts = np.bincount([age for age in ages if age < whole], minlength=whole)
    return resampled({"a_day": counts.astype(float)}, resamples=RESAMPLES, seed=seed + 2)["a_day"]


def _time(started: str) -> datetime:
    time = datetime.fromisoformat(started)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
