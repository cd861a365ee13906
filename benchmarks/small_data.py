"""Few labelled rows: is a learned score worth it, or is a grid over raw signals enough?

    python benchmarks/small_data.py --data DIR [--draws 20] [--json]

From the tuning half of a table, 30 to 600 rows are drawn at random; on them each way of tuning picks its best
setting for each of ten prices of a dollar, and all settings are measured on the other half. The figure is the
area under that error–cost curve (less is better), from the first model alone to the cost of the last. The
grid knows the length of the first model's answer, and whether the second agrees; it tries twelve thresholds
of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from common import Figures, guarded, parser, print_json, progress, shown, table

from cascade.evaluate.metrics import bootstrap
from cascade.evaluate.recorded import half, load_table
from cascade.evaluate.routing import error_cost_area
from cascade.policy.apply import score_values
from cascade.policy.artifact import Goal
from cascade.policy.design import choose, problem_of
from cascade.policy.features import Feature, Features
from cascade.policy.search import Problem, Setting, Walk, walk
from cascade.policy.table import Column, Outcomes

ROWS = (30, 100, 300, 600)
PRICES = np.geomspace(0.03, 30.0, 10)  # of a dollar, times one over the last model's mean cost
STEPS = np.linspace(0.0, 1.0, 11)
PHI, QWEN, GPT4O = "Phi-3.5-mini-instruct", "Qwen2.5-7B-Instruct", "gpt-4o-2024-08-06"
CHAINS = {"zeroeval-gsm": (PHI, "gemma-2-9b-it", GPT4O), "zeroeval-crux": (PHI, QWEN, GPT4O)}
Tuner = Callable[[Outcomes, float, int], Callable[[Outcomes], Walk]]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--draws", type=int, default=20, help="random tuning sets of each size")
    arguments.add_argument(
        "--tables", nargs="+", choices=list(CHAINS), default=list(CHAINS), help="which tables"
    )
    args = arguments.parse_args()
    results: list[Figures] = []
    for name in args.tables:
        whole = load_table(name, args.data)
        world = Outcomes(whole.ids, whole.prompts, {model: whole.models[model] for model in CHAINS[name]})
        tuning, testing = half(world.ids)
        train, test = world.take(tuning), world.take(testing)
        results += measure(name, train, test, [rows for rows in ROWS if rows <= len(train)], args.draws)
    if args.json:
        print_json({"benchmark": "small_data", "results": results})
        return
    rows = [
        [r["table"], str(r["rows"]), *(shown(r, name, 4) for name in ("tuned", "grid", "gap"))]
        for r in results
    ]
    columns = ["table", "rows", "cascade tune", "grid on raw signals", "tune − grid"]
    table(f"area under the error–cost curve, {args.draws} draws", columns, rows)


def measure(name: str, train: Outcomes, test: Outcomes, sizes: Sequence[int], draws: int) -> list[Figures]:
    """Return both areas for each number of rows, with intervals over the draws."""
    found = []
    with progress() as bar:
        for rows in bar.track(sizes, description=name):
            areas: dict[str, list[float]] = {"tuned": [], "grid": []}
            for draw in range(draws):
                picked = train.take(np.random.default_rng(draw).permutation(len(train))[:rows])
                for kind, tuner in (("tuned", tuned), ("grid", grid)):
                    areas[kind].append(area(tuner, picked, test, draw))
            gap = np.array(areas["tuned"]) - np.array(areas["grid"])
            figures: Figures = {"table": name, "rows": rows, "draws": draws}
            for kind, values in (*areas.items(), ("gap", gap)):
                figures |= {kind: float(np.mean(values)), f"{kind}_ci": bootstrap(np.mean, values)}
            found.append(figures)
    return found


def area(tuner: Tuner, picked: Outcomes, test: Outcomes, seed: int) -> float:
    """Return the area under the test rows' error–cost curve of all prices."""
    first, last = (list(test.models.values())[place] for place in (0, -1))
    points = [(float(first.cost_usd.mean()), 1.0 - float(first.quality.mean()))]
    unit = 1.0 / float(picked.models[list(picked.models)[-1]].cost_usd.mean())
    for price in PRICES:
        found = tuner(picked, float(price * unit), seed)(test)
        points.append((float(found.cost.mean()), 1.0 - float(found.quality.mean())))
    points.sort()
    cost, error = np.array(points).T
    return float(error_cost_area(cost, error, np.asarray(last.cost_usd.mean())))


def tuned(picked: Outcomes, price: float, seed: int) -> Callable[[Outcomes], Walk]:
    """Tune as `cascade tune --lambda` does."""
    goal = Goal(kind="lambda", value=price)
    design = choose(picked, goal, seed, None)
    if design is None:
        raise ValueError("no chain to choose from")

    def apply(test: Outcomes) -> Walk:
        features = Features(test)
        scores = [None if s is None else score_values(s.score, features, len(test)) for s in design.stages]
        found = problem_of(test, design.chain, scores, goal)
        gate = None if design.gate is None else score_values(design.gate.score, features, len(test))
        return walk(Problem(found.quality, found.cost, found.scores, gate), design.path[-1])

    return apply


def grid(picked: Outcomes, price: float, _: int) -> Callable[[Outcomes], Walk]:
    """Take the best pair of thresholds among quantiles of the raw signals."""
    problem = raw(picked)
    levels = [[*np.quantile(column, STEPS).tolist(), np.inf] for column in problem.scores.T]

    def worth(setting: Setting) -> float:
        found = walk(problem, setting)
        return float((found.quality - price * found.cost).mean())

    best = max((Setting(accept) for accept in product(*levels)), key=worth)
    return lambda test: walk(raw(test), best)


def raw(outcomes: Outcomes) -> Problem:
    """Return the chain with raw signals: short answers first, then agreement."""
    features, names = Features(outcomes), list(outcomes.models)
    length: Column = -features.column(Feature(kind="signal", model=names[0], name="chars"))
    agreement = features.column(Feature(kind="agreement", model=names[0], other=names[1]))
    return problem_of(outcomes, names, [length, agreement], Goal(kind="lambda", value=0.0))


if __name__ == "__main__":
    guarded(main)
