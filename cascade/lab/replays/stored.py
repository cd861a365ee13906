"""Replaying the stored runs of a graph under other thresholds, limits or a policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.config.change import change_graph
from cascade.config.load import LoadedGraph, load_graph
from cascade.explain.formatting import is_hash, parse_since
from cascade.lab.replays.compare import ReplayComparison, compare
from cascade.lab.replays.replay import Price, ReplaySettings, incompatibility
from cascade.lab.replays.replay import replay as replay_run
from cascade.models.base import Prompt, cost
from cascade.policy.tuned import reads_texts
from cascade.records import Request, Result, Status
from cascade.run import Cascade, build_models
from cascade.trace import RunFilter, default_url, history, max_call_costs


@dataclass(frozen=True)
class ReplayReport:
    """Stored runs beside what they would have become.

    Attributes:
        graph: the graph that decided anew, `name@digest`.
        runs_of: the graph whose runs were replayed, NAME or NAME@DIGEST.
        comparison: the runs as recorded and as replayed.
        left_out: reason → number of runs that could not be replayed.
    """

    graph: str
    runs_of: str
    comparison: ReplayComparison
    left_out: Counter[str]

    def as_json(self) -> dict[str, Any]:
        """Return the counts, costs and changed runs as plain JSON; `[min, max]` where they are bounded."""
        counts = self.comparison
        certain, possible = counts.certain, counts.possible
        statuses = ("answered", "accepted", "best_effort", "abstained", "waiting")
        tiers = counts.tiers()
        return {
            "runs": counts.runs,
            "unknown": dict(counts.unknown),
            "left_out": dict(self.left_out),
            "old": {
                **{name: counts.old["status", name] for name in statuses},
                "tiers": {tier: counts.old["tier", tier] for tier in tiers},
                "cost_usd": counts.old_cost,
            },
            "new": {
                **{name: [certain["status", name], possible["status", name]] for name in statuses},
                "tiers": {tier: [certain["tier", tier], possible["tier", tier]] for tier in tiers},
                "cost_usd": [counts.lowest, counts.highest],
            },
            "changes": [
                {
                    "run": change.run,
                    "old": change.old._asdict() | {"cost_usd": change.old_cost},
                    "new": [outcome._asdict() for outcome in change.new],
                    "cost_usd": [change.lowest, change.highest],
                    "unknown": change.unknown,
                }
                for change in counts.changes
            ],
        }


def replay(
    graph: str | Path,
    *,
    changes: Sequence[str] = (),
    policy: str | Path | None = None,
    graph_name: str | None = None,
    since: str | None = None,
    status: Status | None = None,
    trace_db: str | None = None,
) -> ReplayReport:
    """Decide the stored runs of a graph anew. No model is called.

    Args:
        graph: the graph file.
        changes: thresholds and limits to change, each PATH=VALUE, such as `first.accept=0.9`.
        policy: a policy file that decides in place of the graph's thresholds.
        graph_name: replay the runs of this graph, NAME or NAME@DIGEST; default: the graph's own name.
        since: replay runs that started then or later, ISO 8601.
        status: replay runs with this status.
        trace_db: the trace store, a SQLAlchemy URL or a file; default: the usual one.

    Raises:
        ConfigError: the graph, a change or the policy is invalid; all wrong changes are reported at once.
        RequestError: `since` is not a time.
        TraceError: the trace store cannot be read.
    """
    loaded = load_graph(graph, tightened=False)
    changed = change_graph(loaded, changes, None if policy is None else Path(policy))
    url = default_url() if trace_db is None else trace_db
    runs_of = graph_name or loaded.graph.name
    where = RunFilter(graph=runs_of, status=status, since=parse_since(since))
    settings = ReplaySettings(
        changed.graph,
        loaded.graph.limits.seconds,
        changed.calibrations,
        _prices(changed, url, where),
        changed.policy,
    )
    left_out: Counter[str] = Counter()
    runs = _compatible(changed, history(url, where), left_out)
    comparison = compare(runs, lambda result: replay_run(result, settings))
    return ReplayReport(f"{loaded.graph.name}@{loaded.digest}", runs_of, comparison, left_out)


def _prices(loaded: LoadedGraph, url: str, where: RunFilter) -> Price:
    """Return the upper bound of a call's cost.

    It is the worst case of the request, or, if only the hash of its text is stored, the cost of the most
    expensive recorded call.
    """
    models = build_models(loaded, Cascade)
    recorded: dict[str, float] | None = None

    def price(name: str, request: Request) -> float | None:
        nonlocal recorded
        model = models[name]
        if not is_hash(request.text):
            return cost(model.price, *model.worst_case(Prompt(request)))
        if cost(model.price, 1, 1) == 0:
            return 0.0
        if recorded is None:
            recorded = max_call_costs(url, where)
        return recorded.get(name)

    return price


def _compatible(loaded: LoadedGraph, results: Iterator[Result], left_out: Counter[str]) -> Iterator[Result]:
    """Yield the runs that say something about this graph, and count why the others do not."""
    needs_texts = loaded.policy is not None and reads_texts(loaded.policy)
    for result in results:
        reason = incompatibility(result, loaded.graph)
        if reason is None and needs_texts and is_hash(result.request.text):
            reason = "texts are not stored, and the policy reads them"
        if reason is None:
            yield result
        else:
            left_out[reason] += 1
