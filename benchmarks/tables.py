"""Recorded tables: how well a tuned score routes to the strong model, by RouteLLM's protocol and in dollars.

    python benchmarks/tables.py --data DIR [--json]

Rows are split by the hash of their id; everything (models that take part, what the score is trained for,
answer check or prompt gate) is chosen on the training half by out-of-fold APGR and measured once on the other
half. The weak model is the one that answers where the strong one is not asked. APGR and CPT count strong
calls; the cost at 98 % of the strong model's accuracy counts dollars, the weak calls included, at estimated
prices. Beside it: chance, the prompt's length, plain agreement of two models, the oracle, published routers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from common import Figures, Stopwatch, guarded, parser, print_json, shown, table, thin

from cascade.lab.evaluation.metrics import bootstrap
from cascade.lab.evaluation.routing import apgr, calls_needed, cpt, sweep
from cascade.lab.tables.recorded import TABLES, half, load_table
from cascade.lab.tuning.design import TARGETS, chain_data, choose
from cascade.lab.tuning.ensemble import ensemble_of
from cascade.lab.tuning.promise import Refusal
from cascade.lab.tuning.search import route_rows
from cascade.lab.tuning.tune import tune
from cascade.policy.apply import apply_policy, score_values
from cascade.policy.artifact import Feature, Goal, Score
from cascade.policy.features import features_of
from cascade.policy.table import Column, Outcomes, Rows

RANDOM = 20
RESAMPLES = 500
NEAR = 0.98
LOSS = 0.05
MIXTRAL, PHI, GEMMA = "Mixtral-8x7B-Instruct-v0.1", "Phi-3.5-mini-instruct", "gemma-2-9b-it"
SMALL = [PHI, "Qwen2.5-3B-Instruct", "Qwen2.5-7B-Instruct", "Meta-Llama-3.1-8B-Instruct", GEMMA]


@dataclass(frozen=True)
class Setup:
    """What may take part; the last of `weak` answers, and of `pair`, whose agreement is a baseline."""

    weak: tuple[str, ...]
    strong: str
    pair: tuple[str, str] | None
    published: tuple[str, float] | None


SETUPS = {
    "routellm-gsm8k": Setup((MIXTRAL,), "gpt-4-1106-preview", None, ("causal LLM", 0.624)),
    "routellm-mmlu": Setup((MIXTRAL,), "gpt-4-1106-preview", None, ("best router", 0.603)),
    "zeroeval-gsm": Setup(
        (PHI, "Qwen2-7B-Instruct", "Meta-Llama-3.1-8B-Instruct", GEMMA),
        "gpt-4o-2024-08-06",
        (PHI, GEMMA),
        None,
    ),
    "zeroeval-crux": Setup(
        (SMALL[0], SMALL[1], SMALL[3], GEMMA, SMALL[2]), "gpt-4o-2024-08-06", (PHI, SMALL[2]), None
    ),
    "zeroeval-math": Setup(
        (SMALL[0], SMALL[1], SMALL[3], GEMMA, SMALL[2]), "o1-mini-2024-09-12", (GEMMA, SMALL[1]), None
    ),
}


@dataclass(frozen=True)
class Router:
    """A way to send rows to the strong model: who is asked before, who answers, and each row's need."""

    name: str
    asked: tuple[str, ...]
    answers: str
    need: Column
    ahead: bool = False  # the strong model is asked instead of the others, not after them


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--quick", action="store_true", help="at most 800 rows of each table, 50 resamples"
    )
    arguments.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="which tables")
    args = arguments.parse_args()
    clock, results = Stopwatch(), []
    rows, resamples = (800, 50) if args.quick else (args.rows, RESAMPLES)
    for name in args.tables:
        whole = load_table(name, args.data)
        kept = whole.take(np.array(thin(range(len(whole)), rows)))
        tuning, testing = half(kept.ids)
        results.append(measure(name, kept.take(tuning), kept.take(testing), resamples))
    if args.json:
        print_json({"benchmark": "tables", "tables": results, "took": clock.figures()})
        return
    for found in results:
        show(found)
    print(clock.line())


def measure(name: str, train: Outcomes, test: Outcomes, resamples: int) -> Figures:
    """Return the figures of one table."""
    setup = SETUPS[name]
    routers = [ours(setup, train, test), *baselines(setup, test)]
    rows = compared(routers, setup.strong, test, resamples)
    weak, strong = (test.models[each].quality for each in (setup.weak[-1], setup.strong))
    chance = [apgr(np.random.default_rng(seed).random(len(test)), weak, strong) for seed in range(RANDOM)]
    found: Figures = {
        "table": name,
        "train_rows": len(train),
        "rows": len(test),
        "weak": float(weak.mean()),
        "strong": float(strong.mean()),
        "strong_usd": float(test.models[setup.strong].cost_usd.mean()),
        "routers": rows,
        "random_apgr": float(np.mean(chance)),
        "random_apgr_sd": float(np.std(chance)),
        "published": setup.published,
    }
    found["path"] = tuned_path(setup, train, test, resamples)
    return found | {"promise": promise(setup, train, test, resamples)}


def ours(setup: Setup, train: Outcomes, test: Outcomes) -> Router:
    """Return the router with the best out-of-fold APGR on the training rows."""
    ensemble = ensemble_of(train, 0)
    answers, strong = setup.weak[-1], train.models[setup.strong].quality
    weak = train.models[answers].quality
    found: list[tuple[float, tuple[str, ...], str, Score]] = []
    for size in range(min(3, len(setup.weak))):
        for helpers in combinations(setup.weak[:-1], size):
            asked = (*helpers, answers)
            for target in TARGETS:
                stage = ensemble.stage(asked, setup.strong, target)
                if stage is not None:
                    found.append((apgr(1.0 - stage.held_out, weak, strong), asked, target, stage.score))
    gate = ensemble.gate(answers, setup.strong)
    if gate is not None:
        found.append((apgr(gate.held_out, weak, strong), (answers,), "gate", gate.score))
    _, asked, what, score = max(found, key=lambda each: each[0])
    value = score_values(score, features_of(test), len(test))
    if what == "gate":
        return Router("cascade: prompt gate", asked, answers, value, ahead=True)
    return Router(f"cascade: answer check, trained for {what}", asked, answers, 1.0 - value)


def baselines(setup: Setup, test: Outcomes) -> list[Router]:
    """Return what needs no training, and what no router can beat."""
    features, answers = features_of(test), setup.weak[-1]
    weak, strong = (test.models[each].quality for each in (answers, setup.strong))
    length = features.column(Feature(kind="prompt", name="chars"))
    found = [Router("prompt length", (answers,), answers, length, ahead=True)]
    if setup.pair is not None:
        left, right = setup.pair
        agree = features.column(Feature(kind="agreement", model=left, other=right))
        found.append(Router("agreement of two", (left, right), right, 1.0 - agree))
    ties = np.random.default_rng(0).random(len(test)) / 2  # the strong model last where it is worse
    return [*found, Router("oracle", (answers,), answers, strong - weak + ties, ahead=True)]


def compared(routers: Sequence[Router], strong: str, test: Outcomes, resamples: int) -> list[Figures]:
    """Return the figures of each router, with intervals, and by how much the first is better than it.

    The same resampled rows serve all routers, so that the differences are of pairs.
    """
    found = [figures_of(router, strong, test) for router in routers]
    draws = np.random.default_rng(0).integers(len(test), size=(resamples, len(test)))
    seen = [[sampled(router, strong, test, rows) for rows in draws] for router in routers]
    spread = np.array(seen)  # routers × resamples × (APGR, cost at 98 %)
    for place, name in enumerate(("apgr", "cost_98_of_strong")):
        for index, figures in enumerate(found):
            figures[f"{name}_ci"] = np.nanquantile(spread[index, :, place], (0.025, 0.975)).tolist()
            if index:
                gap = spread[0, :, place] - spread[index, :, place]
                figures[f"{name}_gap"] = found[0][name] - figures[name]
                figures[f"{name}_gap_ci"] = np.nanquantile(gap, (0.025, 0.975)).tolist()
    return found


def figures_of(router: Router, name: str, test: Outcomes) -> Figures:
    """Return APGR, CPT and the cost at 98 % of the strong model on the test rows."""
    weak, strong = test.models[router.answers].quality, test.models[name].quality
    found: Figures = {"router": router.name, "asked": list(router.asked)}
    found["apgr"], found["cost_98_of_strong"] = sampled(router, name, test, np.arange(len(test)))
    for level in (0.5, 0.8):
        found[f"cpt{level * 100:.0f}"] = cpt(router.need, weak, strong, level)
    return found


def sampled(router: Router, name: str, test: Outcomes, rows: Rows) -> tuple[float, float]:
    """Return APGR and the cost at 98 % of the strong model's accuracy, as a share of its cost, on `rows`."""
    weak, strong, need = (
        test.models[router.answers].quality[rows],
        test.models[name].quality[rows],
        router.need[rows],
    )
    low, high = weak.mean(), strong.mean()
    share, quality = sweep(need, weak, strong, 101)
    calls = float(calls_needed(share, quality, low, high, float((NEAR * high - low) / (high - low))))
    before = sum(float(test.models[each].cost_usd[rows].mean()) for each in router.asked)
    top = float(test.models[name].cost_usd[rows].mean())
    return apgr(need, weak, strong), calls + before / top * (1.0 - calls if router.ahead else 1.0)


def tuned_path(setup: Setup, train: Outcomes, test: Outcomes, resamples: int) -> Figures:
    """Return the cost at 98 % of what `tune --max-loss` would try: gate and checks tuned jointly.

    Chain and thresholds are from the training rows; as for the routers, the test rows say which thresholds
    are the cheapest that keep 98 % of the strong model's accuracy.
    """
    names = [*setup.weak, setup.strong]
    loss = (1.0 - NEAR) * float(train.models[setup.strong].quality.mean())
    kept = Outcomes(train.ids, train.prompts, {name: train.models[name] for name in names})
    design = choose(kept, Goal(kind="max_loss", value=loss, delta=0.1), 0, setup.strong)
    if design is None:
        return {"chain": [], "cost_98_of_strong": float("nan"), "cost_98_of_strong_ci": [float("nan")] * 2}
    features = features_of(test)
    scores = [None if s is None else score_values(s.score, features, len(test)) for s in design.stages]
    data = chain_data(test, design.chain, scores, Goal(kind="lambda", value=0.0))
    if design.gate is not None:
        data = replace(data, gate=score_values(design.gate.score, features, len(test)))
    routings = [route_rows(data, thresholds) for thresholds in design.path]
    quality, cost = (np.array([getattr(each, of) for each in routings]) for of in ("quality", "cost"))
    strong = test.models[setup.strong]

    def cheapest(rows: Rows) -> float:
        enough = quality[:, rows].mean(axis=1) >= NEAR * strong.quality[rows].mean()
        return float(min([1.0, *(cost[enough][:, rows].mean(axis=1) / strong.cost_usd[rows].mean())]))

    draws = np.random.default_rng(0).integers(len(test), size=(resamples, len(test)))
    return {
        "chain": list(design.chain),
        "cost_98_of_strong": cheapest(np.arange(len(test))),
        "cost_98_of_strong_ci": np.quantile([cheapest(rows) for rows in draws], (0.025, 0.975)).tolist(),
    }


def promise(setup: Setup, train: Outcomes, test: Outcomes, resamples: int) -> Figures:
    """Tune on the training rows for a certified loss of at most 0.05, and measure on the test rows."""
    goal = Goal(kind="max_loss", value=LOSS, delta=0.1)
    policy = tune(train, goal, chain=[*setup.weak, setup.strong])
    if isinstance(policy, Refusal):
        return {"refused": policy.reason, "rows_needed": policy.rows}
    decided = apply_policy(policy, test)
    strong = test.models[setup.strong]
    loss = strong.quality - decided.quality
    return {
        "chain": list(policy.chain),
        "bound": policy.certificates[0].bound,
        "loss": float(loss.mean()),
        "loss_ci": bootstrap(np.mean, loss, resamples=resamples),
        "cost_of_strong": float(decided.cost_usd.mean() / strong.cost_usd.mean()),
    }


def show(found: Figures) -> None:
    """Print one table."""
    rows = [router_row(router) for router in found["routers"]]
    rows.append(["random", "", f"{found['random_apgr']:.3f} ± {found['random_apgr_sd']:.3f}"])
    if found["published"]:
        name, value = found["published"]
        rows.append([f"published: {name}", "", f"{value:.3f}"])
    title = (
        f"{found['table']}: {found['rows']} test rows, {found['train_rows']} for tuning; "
        f"weak {found['weak']:.3f}, strong {found['strong']:.3f} at ${found['strong_usd']:.6f}"
    )
    columns = [
        "router",
        "asked first",
        "APGR",
        "ours more by",
        "CPT50",
        "CPT80",
        "cost at 98 %",
        "ours more by",
    ]
    table(title, columns, rows)
    path = found["path"]
    print(
        f"cost at 98 % with gate and checks tuned jointly ({' → '.join(path['chain'])}): "
        f"{shown(path, 'cost_98_of_strong')} of the strong model's"
    )
    kept: dict[str, Any] = found["promise"]
    if "refused" in kept:
        print(f"loss ≤ {LOSS} at 90 %: refused ({kept['refused']}; needs about {kept['rows_needed']} rows)\n")
        return
    print(
        f"loss ≤ {LOSS} at 90 %: {' → '.join(kept['chain'])}, bound {kept['bound']:.4f}; on test rows "
        f"loss {kept['loss']:.4f} ({kept['loss_ci'][0]:.4f} to {kept['loss_ci'][1]:.4f}) at "
        f"{kept['cost_of_strong']:.1%} of the strong model's cost\n"
    )


def router_row(router: Figures) -> Sequence[str]:
    """Return one line of the table."""
    asked = ", ".join(name.partition("-Instruct")[0].removesuffix("-it") for name in router["asked"])
    levels = [f"{router[name]:.3f}" for name in ("cpt50", "cpt80")]
    apgr_cells = [shown(router, "apgr"), shown(router, "apgr_gap")]
    cost_cells = [shown(router, "cost_98_of_strong"), shown(router, "cost_98_of_strong_gap")]
    return [router["router"], asked, *apgr_cells, *levels, *cost_cells]


if __name__ == "__main__":
    guarded(main)
