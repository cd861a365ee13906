"""The bundled graphs on test rows: what they accept, how right it is, and what escalation is worth.

    python benchmarks/support.py --data DIR [--json]

support.yaml (CLINC150 with its out-of-scope rows), banking.yaml (BANKING77), threats.yaml (TRAM) and
desk.yaml (all rows mixed) run as they are, but local-only: the opus stage is never asked, and what the local
tiers do not accept is abstained. Beside each graph: every tier alone, answering everything and at the graph's
own coverage; and the same graph escalating at random, as often as it really does.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import GRAPHS, Figures, guarded, parser, print_json, progress, rate, shown, table, thin
from published import DESK, OOS, TASKS, load

from cascade import Cascade, Result
from cascade.config.load import LoadedGraph, load_graph
from cascade.policy.savings import PricedRun, savings
from cascade.spec.parts import Limits
from cascade.spec.schema import Graph, Stage

SETS = {"support": ("clinc150",), "banking": ("banking77",), "threats": ("tram",), "desk": TASKS}
DRAWS = 1000  # of random escalation
OVERLAP = ("banking", "credit_cards")  # CLINC150's domains that BANKING77 is about too


@dataclass(frozen=True)
class Case:
    """One test row and where it is from."""

    task: str
    text: str
    label: str


@dataclass(frozen=True)
class Outcome:
    """What a graph made of one row; `tier` is None unless it was accepted."""

    accepted: bool
    right: bool
    confidence: float
    tier: str | None
    branch: str | None


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--graphs", nargs="+", choices=list(SETS), default=list(SETS), help="which graphs")
    args = arguments.parse_args()
    results = []
    for name in args.graphs:
        cases = [
            Case(task, row.text, row.label)
            for task in SETS[name]
            for row in thin(load(task, args.data).test, args.rows)
        ]
        results.append(measure_graph(load_graph(GRAPHS / f"{name}.yaml"), cases, args.data))
    if args.json:
        print_json({"benchmark": "support", "graphs": results})
    else:
        for figures in results:
            print_tables(figures)


def measure_graph(loaded: LoadedGraph, cases: Sequence[Case], data: Path) -> Figures:
    """Return the figures of one graph, of its tiers alone, and of random escalation."""
    graph = loaded.graph
    results = run(loaded, cases)
    outcomes = judge(graph, cases, results)
    inside = np.array([case.label != OOS for case in cases])
    figures: Figures = {"graph": graph.name, "rows": len(cases)} | quality(outcomes, inside)
    figures["tiers"] = {str(tier): n / len(cases) for tier, n in Counter(o.tier for o in outcomes).items()}
    figures["cost_usd"] = sum(result.cost_usd for result in results)
    priced = [PricedRun(graph.name, each.cost_usd, each.baseline) for each in results if each.baseline]
    saved = savings(priced)
    figures["baseline_usd"] = saved.cost_usd if saved else 0.0
    figures["baseline_range"] = [saved.low_usd, saved.high_usd] if saved else [0.0, 0.0]
    if any(stage.gate is not None and stage.gate.to for stage in graph.stages):
        figures["gate"] = gate_figures(cases, outcomes, data)
    tiers = local_tiers(graph)
    alone = {tier: judge(graph, cases, run(only(loaded, tier), cases)) for tier in tiers}
    covered = int(sum(o.accepted for o, here in zip(outcomes, inside, strict=True) if here))
    figures["alone"] = {tier: alone_figures(found, inside, covered) for tier, found in alone.items()}
    figures["random"] = random_escalation([alone[tier] for tier in tiers], outcomes, inside, tiers)
    return figures


def run(loaded: LoadedGraph, cases: Sequence[Case]) -> list[Result]:
    """Run every case through a graph on this machine only, without keeping traces."""

    async def all_of_them() -> list[Result]:
        slots = asyncio.Semaphore(16)
        async with Cascade(loaded) as cascade:
            with progress() as bar:
                shown_as = bar.add_task(loaded.graph.description or loaded.graph.name, total=len(cases))

                async def one(case: Case) -> Result:
                    async with slots:
                        result = await cascade.ainvoke(case.text, local_only=True)
                    bar.advance(shown_as)
                    return result

                return await asyncio.gather(*map(one, cases))

    return asyncio.run(all_of_them())


def judge(graph: Graph, cases: Sequence[Case], results: Sequence[Result]) -> list[Outcome]:
    """Grade results. Where a gate branches, a right answer of the wrong set is wrong, even if named alike."""
    outcomes = []
    for case, result in zip(cases, results, strict=True):
        branch = next((s.gate for s in result.trace if s.gate and s.decision.rule == "routed"), None)
        chosen = max(branch, key=lambda name: branch[name]) if branch else None
        fits = chosen is None or chosen == DESK[case.task]
        outcomes.append(
            Outcome(
                accepted=result.status == "accepted",
                right=fits and (result.text or result.draft) == case.label,
                confidence=-1.0 if result.confidence is None else result.confidence,
                tier=result.tier if result.status == "accepted" else None,
                branch=chosen,
            )
        )
    return outcomes


def quality(outcomes: Sequence[Outcome], inside: np.ndarray) -> Figures:
    """Return coverage and accuracy of the accepted in-scope rows, and wrongly accepted out-of-scope rows."""
    known = [o for o, here in zip(outcomes, inside, strict=True) if here]
    unknown = [o for o, here in zip(outcomes, inside, strict=True) if not here]
    accepted = [o for o in known if o.accepted]
    return {
        **rate("coverage", len(accepted), len(known)),
        **rate("accuracy", sum(o.right for o in accepted), len(accepted)),
        **rate("oos_wrong", sum(o.accepted and not o.right for o in unknown), len(unknown)),
    }


def local_tiers(graph: Graph) -> list[str]:
    """Return the tiers of local models that answer in `graph`, in the order of its stages."""
    names = [name for stage in graph.stages for name in stage.ask]
    return list(dict.fromkeys(graph.models[name].tier for name in names if graph.models[name].local))


def only(loaded: LoadedGraph, tier: str) -> LoadedGraph:
    """Return the graph in which the stages of `tier` answer everything; gates branch straight to them.

    A branch without that tier keeps its last local stage.
    """
    graph = loaded.graph

    def reached(name: str) -> str:
        found = name
        target: str | None = name
        while target is not None and graph.models[graph.stage(target).ask[0]].local:
            found = target
            if graph.models[graph.stage(target).ask[0]].tier == tier:
                break
            target = graph.next_stage(target)
        return found

    def changed(stage: Stage) -> Stage:
        if stage.gate is not None and stage.gate.to:
            to = {branch: reached(target) for branch, target in stage.gate.to.items()}
            gate = stage.gate.model_copy(update={"to": to, "accept": None})
            return stage.model_copy(update={"gate": gate, "escalate": "end"})
        return stage.model_copy(update={"accept": 0.0, "escalate": "end"})

    branching = [stage for stage in graph.stages if stage.gate is not None and stage.gate.to]
    entries = [name for s in branching if s.gate and s.gate.to for name in s.gate.to.values()]
    asking = [graph.stage(reached(name)) for name in entries or [graph.stages[0].name]]
    update = {"stages": [changed(stage) for stage in [*branching, *asking]], "limits": Limits()}
    return LoadedGraph(
        graph.model_copy(update=update),
        loaded.path,
        loaded.base,
        loaded.digest,
        loaded.calibrations,
        facts=loaded.facts,
    )


def alone_figures(outcomes: Sequence[Outcome], inside: np.ndarray, covered: int) -> Figures:
    """Return how right a tier alone is on all in-scope rows, and on the `covered` most confident ones.

    The threshold for that coverage is also applied to the out-of-scope rows.
    """
    known = sorted((o for o, here in zip(outcomes, inside, strict=True) if here), key=lambda o: -o.confidence)
    unknown = [o for o, here in zip(outcomes, inside, strict=True) if not here]
    kept = known[:covered]
    threshold = kept[-1].confidence if kept else math.inf
    return {
        **rate("accuracy", sum(o.right for o in known), len(known)),
        **rate("accuracy_at_coverage", sum(o.right for o in kept), len(kept)),
        **rate(
            "oos_wrong_at_coverage",
            sum(o.confidence >= threshold and not o.right for o in unknown),
            len(unknown),
        ),
    }


def random_escalation(
    alone: Sequence[Sequence[Outcome]], outcomes: Sequence[Outcome], inside: np.ndarray, tiers: Sequence[str]
) -> Figures:
    """Return the same figures when each tier accepts at random, as often of all rows as it did.

    The intervals are of the random choices, over `DRAWS` of them on these very rows.
    """
    right = np.array([[o.right for o in found] for found in alone])
    chance, left = [], len(outcomes)
    for tier in tiers:
        accepted = sum(o.tier == tier for o in outcomes)
        chance.append(accepted / left if left else 0.0)
        left -= accepted
    generator = np.random.default_rng(0)
    coverage, accuracy, wrong = [], [], []
    for _ in range(DRAWS):
        accepts = generator.uniform(size=right.shape) < np.array(chance)[:, None]
        taken = accepts.max(axis=0)
        correct = right[accepts.argmax(axis=0), np.arange(right.shape[1])] & taken
        coverage.append(taken[inside].mean())
        if (taken & inside).any():
            accuracy.append(correct[inside].sum() / taken[inside].sum())
        if not inside.all():
            wrong.append((taken & ~correct)[~inside].mean())
    figures: Figures = {}
    for name, values in [("coverage", coverage), ("accuracy", accuracy), ("oos_wrong", wrong)]:
        figures[name] = float(np.mean(values)) if values else math.nan
        figures[f"{name}_ci"] = np.quantile(values, [0.025, 0.975]).tolist() if values else (math.nan,) * 2
    return figures


def gate_figures(cases: Sequence[Case], outcomes: Sequence[Outcome], data: Path) -> Figures:
    """Return how often the gate picks the right set, and how often an overlapping intent goes to the other.

    CLINC150 has two domains about money and cards, which is all that BANKING77 is about.
    """
    domains = json.loads((data / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    money = {intent for domain in OVERLAP for intent in domains[domain]}
    both = list(zip(cases, outcomes, strict=True))
    figures: Figures = dict(rate("accuracy", sum(o.branch == DESK[c.task] for c, o in both), len(both)))
    for task in TASKS:
        own = [o for c, o in both if c.task == task]
        figures |= rate(f"accuracy_{task}", sum(o.branch == DESK[task] for o in own), len(own))
    assistant = [o for c, o in both if c.task == "clinc150" and c.label in money]
    banking = [o for c, o in both if c.task == "banking77"]
    figures |= rate("money_to_banking", sum(o.branch == DESK["banking77"] for o in assistant), len(assistant))
    figures |= rate("banking_to_assistant", sum(o.branch == DESK["clinc150"] for o in banking), len(banking))
    lost = [o for c, o in both if o.branch not in (None, DESK[c.task])]
    return figures | rate("misrouted_accepted", sum(o.accepted for o in lost), len(lost))


def print_tables(figures: Figures) -> None:
    """Print what one graph does, beside its alternatives."""
    names = ("coverage", "accuracy", "oos_wrong")
    rows = [["cascade", *(shown(figures, name) for name in names)]]
    rows.append(["random escalation", *(shown(figures["random"], name) for name in names)])
    for tier, found in figures["alone"].items():
        same = [shown(found, name) for name in ("accuracy_at_coverage", "oos_wrong_at_coverage")]
        rows.append([f"{tier} alone, most confident", shown({"x": figures["coverage"]}, "x"), *same])
        rows.append([f"{tier} alone, everything", "1.000", shown(found, "accuracy"), "–"])
    title = f"{figures['graph']}.yaml, {figures['rows']} test rows"
    table(title, ["", "in-scope rows accepted", "right among them", "oos rows wrongly accepted"], rows)
    tiers = ", ".join(
        f"{'abstained' if t == 'None' else t} {share:.1%}" for t, share in figures["tiers"].items()
    )
    print(f"share per tier: {tiers}")
    low, high = figures["baseline_range"]
    print(
        f"cost: ${figures['cost_usd']:.4f}, and ${figures['baseline_usd']:.2f} "
        f"({low:.2f} to {high:.2f}) for the strongest model alone"
    )
    if gate := figures.get("gate"):
        table("gate", ["", "share of rows"], [
            ["right set, all rows", shown(gate, "accuracy", 4)],
            *([f"right set, {task}", shown(gate, f"accuracy_{task}", 4)] for task in TASKS),
            ["assistant's money intents sent to banking", shown(gate, "money_to_banking", 4)],
            ["banking intents sent to the assistant", shown(gate, "banking_to_assistant", 4)],
            ["accepted among the misrouted", shown(gate, "misrouted_accepted", 4)],
        ])  # fmt: skip
    print()


if __name__ == "__main__":
    guarded(main)
