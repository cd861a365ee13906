"""Few labelled rows: is a learned score worth it, or is a grid over raw signals enough?

    python benchmarks/small_data.py --data DIR [--draws 100] [--json]

From the tuning half of a table, 30 to 1,000 rows are drawn at random; on them each way of tuning picks its
best thresholds for each of ten prices of a dollar, and all are measured on the other half. The figure
is the area under that error–cost curve (less is better), from the first model alone to the cost of the last.
The grid knows the length of the first model's answer, and whether the second agrees (for two models the
length of the prompt); it tries twelve thresholds of each. The copula tuner knows the same signals: each is
calibrated by a logistic regression, a Gaussian copula joins the calibrated confidences (for two checked
stages the same as a Markov chain of them), and thresholds are optimised on what that model expects, after
Zellinger and Thomson (arXiv 2501.09345).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from common import Figures, Stopwatch, guarded, parser, print_json, progress, shown, table
from scipy.optimize import minimize
from scipy.stats import norm, rankdata

from cascade.lab.evaluation.metrics import bootstrap
from cascade.lab.evaluation.routing import error_cost_area
from cascade.lab.tables.recorded import half, load_table
from cascade.lab.tuning.design import chain_data, choose
from cascade.lab.tuning.search import ChainData, Routing, route_rows
from cascade.policy.apply import score_values
from cascade.policy.artifact import Feature, Goal
from cascade.policy.features import features_of
from cascade.policy.table import Column, Outcomes
from cascade.policy.thresholds import Thresholds

ROWS = (30, 100, 300, 600, 1000)
PRICES = np.geomspace(0.03, 30.0, 10)  # of a dollar, times one over the last model's mean cost
STEPS = np.linspace(0.0, 1.0, 11)
PHI, QWEN, GPT4O = "Phi-3.5-mini-instruct", "Qwen2.5-7B-Instruct", "gpt-4o-2024-08-06"
CHAINS = {
    "zeroeval-gsm": (PHI, "gemma-2-9b-it", GPT4O),
    "zeroeval-crux": (PHI, QWEN, GPT4O),
    "routellm-mmlu": ("Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"),
}
SAMPLES = 2000  # drawn from the copula
LEVELS = 21  # thresholds of each stage that it tries
Tuner = Callable[[Outcomes, float, int], Callable[[Outcomes], Routing]]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--draws", type=int, default=100, help="random tuning sets of each size")
    arguments.add_argument("--quick", action="store_true", help="10 draws of 30 and 100 rows")
    arguments.add_argument(
        "--tables", nargs="+", choices=list(CHAINS), default=list(CHAINS), help="which tables"
    )
    arguments.add_argument("--sizes", nargs="+", type=int, default=ROWS, help="how many rows to tune on")
    args = arguments.parse_args()
    draws, wanted = (10, ROWS[:2]) if args.quick else (args.draws, args.sizes)
    clock, results = Stopwatch(), list[Figures]()
    for name in args.tables:
        whole = load_table(name, args.data)
        world = Outcomes(whole.ids, whole.prompts, {model: whole.models[model] for model in CHAINS[name]})
        tuning, testing = half(world.ids)
        train, test = world.take(tuning), world.take(testing)
        results += measure(name, train, test, [rows for rows in wanted if rows <= len(train)], draws)
    if args.json:
        print_json({"benchmark": "small_data", "results": results, "took": clock.figures()})
        return
    rows = [
        [r["table"], str(r["rows"]), *(shown(r, name, 4) for name in (*TUNERS, "gap", "copula_gap"))]
        for r in results
    ]
    columns = [
        "table",
        "rows",
        "cascade tune",
        "grid on raw signals",
        "copula",
        "tune − grid",
        "tune − copula",
    ]
    table(f"area under the error–cost curve, {draws} draws", columns, rows)
    print(clock.line())


def measure(name: str, train: Outcomes, test: Outcomes, sizes: Sequence[int], draws: int) -> list[Figures]:
    """Return both areas for each number of rows, with intervals over the draws."""
    found = []
    with progress() as bar:
        for rows in bar.track(sizes, description=name):
            areas: dict[str, list[float]] = {kind: [] for kind in TUNERS}
            for draw in range(draws):
                picked = train.take(np.random.default_rng(draw).permutation(len(train))[:rows])
                for kind, tuner in TUNERS.items():
                    areas[kind].append(area(tuner, picked, test, draw))
            gap, copula_gap = (
                np.array(areas["tuned"]) - np.array(areas[kind]) for kind in ("grid", "copula")
            )
            figures: Figures = {"table": name, "rows": rows, "draws": draws}
            for kind, values in (*areas.items(), ("gap", gap), ("copula_gap", copula_gap)):
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


def tuned(picked: Outcomes, price: float, seed: int) -> Callable[[Outcomes], Routing]:
    """Tune as `cascade tune --lambda` does."""
    goal = Goal(kind="lambda", value=price)
    design = choose(picked, goal, seed, None)
    if design is None:
        raise ValueError("no chain to choose from")

    def apply(test: Outcomes) -> Routing:
        features = features_of(test)
        scores = [None if s is None else score_values(s.score, features, len(test)) for s in design.stages]
        found = chain_data(test, design.chain, scores, goal)
        gate = None if design.gate is None else score_values(design.gate.score, features, len(test))
        return route_rows(replace(found, gate=gate), design.path[-1])

    return apply


def grid(picked: Outcomes, price: float, _: int) -> Callable[[Outcomes], Routing]:
    """Take the best pair of thresholds among quantiles of the raw signals."""
    data = raw(picked)
    levels = [[*np.quantile(column, STEPS).tolist(), np.inf] for column in data.scores.T]

    def worth(thresholds: Thresholds) -> float:
        found = route_rows(data, thresholds)
        return float((found.quality - price * found.cost).mean())

    best = max((Thresholds(accept) for accept in product(*levels)), key=worth)
    return lambda test: route_rows(raw(test), best)


def copula(picked: Outcomes, price: float, seed: int) -> Callable[[Outcomes], Routing]:
    """Take the thresholds that are best under a model of the joint distribution of calibrated confidences."""
    data = raw(picked)
    stages = data.checked
    fits = [logistic(data.scores[:, k], data.quality[:, k]) for k in range(stages)]
    sure = np.column_stack([fit(data.scores[:, k]) for k, fit in enumerate(fits)])
    top = logistic(sure[:, -1], data.quality[:, -1])
    ranks = norm.ppf((np.apply_along_axis(rankdata, 0, sure)) / (len(sure) + 1))
    bend = np.atleast_2d(np.corrcoef(ranks, rowvar=False) if ranks.std(axis=0).all() else np.eye(stages))
    normal = np.random.default_rng(seed).multivariate_normal(np.zeros(stages), bend, SAMPLES)
    drawn = np.column_stack([np.quantile(sure[:, k], norm.cdf(normal[:, k])) for k in range(stages)])
    cost = data.cost.mean(axis=0)
    expected = ChainData(
        np.column_stack([drawn, top(drawn[:, -1])]), np.broadcast_to(cost, (SAMPLES, stages + 1)), drawn
    )
    levels = [[*np.quantile(column, np.linspace(0, 1, LEVELS)).tolist(), np.inf] for column in drawn.T]

    def worth(thresholds: Thresholds) -> float:
        found = route_rows(expected, thresholds)
        return float((found.quality - price * found.cost).mean())

    best = max((Thresholds(accept) for accept in product(*map(dict.fromkeys, levels))), key=worth)

    def apply(test: Outcomes) -> Routing:
        found = raw(test)
        scores = np.column_stack([fit(found.scores[:, k]) for k, fit in enumerate(fits)])
        return route_rows(ChainData(found.quality, found.cost, scores), best)

    return apply


def logistic(score: Column, right: Column) -> Callable[[Column], Column]:
    """Fit P(right) by a logistic regression on one score, with a weak penalty so that it is finite."""
    mean, scale = float(score.mean()), max(float(score.std()), 1e-9)
    x = (score - mean) / scale

    def loss(w: Column) -> tuple[float, Column]:
        z = w[0] + w[1] * x
        chance = 1 / (1 + np.exp(-z))
        slope = chance - right
        value = float((np.logaddexp(0, z) - right * z).sum() + 0.5 * w @ w * 0.1)
        return value, np.array([slope.sum(), slope @ x]) + 0.1 * w

    w = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return lambda new: np.asarray(1 / (1 + np.exp(-(w[0] + w[1] * (new - mean) / scale))))


TUNERS: dict[str, Tuner] = {"tuned": tuned, "grid": grid, "copula": copula}


def raw(outcomes: Outcomes) -> ChainData:
    """Return the chain with raw signals: short answers first, then agreement."""
    features, names = features_of(outcomes), list(outcomes.models)
    if len(names) == 2:
        prompt: Column = -features.column(Feature(kind="prompt", name="chars"))
        return chain_data(outcomes, names, [prompt], Goal(kind="lambda", value=0.0))
    length: Column = -features.column(Feature(kind="signal", model=names[0], name="chars"))
    agreement = features.column(Feature(kind="agreement", model=names[0], other=names[1]))
    return chain_data(outcomes, names, [length, agreement], Goal(kind="lambda", value=0.0))


if __name__ == "__main__":
    guarded(main)
