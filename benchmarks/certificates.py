"""Certificates: how often is a promise broken, and what does keeping it cost?

    python benchmarks/certificates.py --data DIR [--draws 1000] [--json]

Each draw splits a table at random: half of it, at most 1,000 rows, calibrates, the rest tests. A promise is
broken where the risk exceeds alpha on all rows that no score and no threshold was fitted on, the certifying
and the test rows: that is the risk which the certifying rows are a random sample of, known exactly. On the
test rows alone the risk may exceed alpha by chance, too; that is counted beside it. `tune --max-risk` must
break its promise in at most delta of the draws. Plain tuning takes the boldest threshold whose error on all
calibration rows, out of fold, is at most alpha; it is measured on the test rows. The oracle takes it on the
test rows themselves, with plain tuning's score. Bundled experts escalate to a person, who is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from common import Figures, Stopwatch, guarded, parser, print_json, progress, rate, shown, table, thin
from experts import Answer, ask_all
from published import Row, load

from cascade.lab.tables.recorded import load_table
from cascade.lab.tuning.design import chain_data, choose
from cascade.lab.tuning.ensemble import ensemble_of
from cascade.lab.tuning.promise import certify
from cascade.lab.tuning.search import ChainData, lowest_threshold, route_rows
from cascade.models.llamacpp import LlamaCppSettings
from cascade.policy.apply import score_values
from cascade.policy.artifact import Goal
from cascade.policy.features import features_of
from cascade.policy.table import ModelOutcomes, Outcomes, Rows

DELTA = 0.1
MOST = 1000  # calibration rows of a draw
PERSON_USD = 1.0
MIXTRAL, GPT4 = "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
PHI, QWEN, GPT4O, O1 = (
    "Phi-3.5-mini-instruct",
    "Qwen2.5-7B-Instruct",
    "gpt-4o-2024-08-06",
    "o1-mini-2024-09-12",
)
# Table → chain and alpha, about half of the error that the last small model makes alone.
WORLDS = {
    "routellm-gsm8k": ((MIXTRAL, GPT4), 0.25),
    "routellm-mmlu": ((MIXTRAL, GPT4), 0.25),
    "zeroeval-gsm": ((PHI, "gemma-2-9b-it", GPT4O), 0.06),
    "zeroeval-crux": ((PHI, QWEN, GPT4O), 0.25),
    "zeroeval-math": (("Qwen2.5-3B-Instruct", QWEN, O1), 0.25),
}
EXPERTS = {"tiny clinc150": 0.03, "tiny banking77": 0.03, "hunter tram": 0.1}


@dataclass(frozen=True)
class Outcome:
    """What one draw led to: risks (NaN if nothing is accepted), and the share of test rows accepted.

    `risk` is on the rows that fitted nothing, `seen` on the test rows alone.
    """

    risk: float
    seen: float
    coverage: float


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--draws", type=int, default=1000, help="random splits of each table")
    arguments.add_argument("--quick", action="store_true", help="50 splits, for a first look")
    names = [*WORLDS, *EXPERTS]
    arguments.add_argument("--tables", nargs="+", choices=names, default=names, help="which tables")
    args = arguments.parse_args()
    clock, results, draws = Stopwatch(), [], 50 if args.quick else args.draws
    for name in args.tables:
        if name in WORLDS:
            chain, alpha = WORLDS[name]
            world = load_table(name, args.data)
            world = world.take(np.array(thin(range(len(world)), args.rows)))
        else:
            expert, task = name.split()
            chain, alpha = (expert, "person"), EXPERTS[name]
            rows = thin(load(task, args.data).test, args.rows)
            config = LlamaCppSettings(kind="llamacpp", path=f"bundled:{expert}", task=task)
            world = expert_world(expert, rows, asyncio.run(ask_all(config, name, rows)))
        results.append(measure(name, world, chain, alpha, draws))
    if args.json:
        print_json({"benchmark": "certificates", "delta": DELTA, "tables": results, "took": clock.figures()})
    else:
        show(results)
        print(clock.line())


def expert_world(expert: str, rows: Sequence[Row], answers: Sequence[Answer]) -> Outcomes:
    """Return the outcomes of an expert, and of a person who is always right."""
    right = np.array(
        [row.label == answer.label for row, answer in zip(rows, answers, strict=True)], dtype=float
    )
    sure = np.array([answer.top1 for answer in answers])
    unknown = np.full(len(rows), np.nan)
    small = ModelOutcomes(right, np.zeros(len(rows)), unknown, sure)
    person = ModelOutcomes(np.ones(len(rows)), np.full(len(rows), PERSON_USD), unknown, unknown)
    ids, prompts = [str(index) for index in range(len(rows))], [row.text for row in rows]
    return Outcomes(ids, prompts, {expert: small, "person": person})


def measure(name: str, world: Outcomes, chain: Sequence[str], alpha: float, draws: int) -> Figures:
    """Return how often each way of tuning breaks its promise, and how much it accepts."""
    models = {model: world.models[model] for model in chain}
    world = Outcomes(world.ids, world.prompts, models, {}, world.sha256)
    size = min(MOST, len(world) // 2)
    certified, plain, oracle = [], [], []
    with progress() as bar:
        for draw in bar.track(range(draws), description=name):
            order = np.random.default_rng(draw).permutation(len(world))
            certified.append(tuned(world, order, size, alpha, draw))
            found, best = pointwise(world, order, size, alpha, draw)
            plain.append(found)
            oracle.append(best)
    figures: Figures = {"table": name, "chain": list(chain), "alpha": alpha, "rows": size, "draws": draws}
    for kind, outcomes in (("certified", certified), ("plain", plain)):
        figures |= rate(f"{kind}_broken", sum(each.risk > alpha for each in outcomes), draws)
        figures |= rate(f"{kind}_seen_broken", sum(each.seen > alpha for each in outcomes), draws)
        figures[f"{kind}_coverage"] = float(np.mean([each.coverage for each in outcomes]))
    figures |= rate("refused", sum(np.isnan(each.risk) for each in certified), draws)
    figures["oracle_coverage"] = float(np.mean([each.coverage for each in oracle]))
    return figures


def tuned(world: Outcomes, order: Rows, size: int, alpha: float, seed: int) -> Outcome:
    """Tune as `cascade tune --max-risk` does, and return the largest risk of a stage that accepts."""
    goal = Goal(kind="max_risk", value=alpha, delta=DELTA)
    half, chain = size // 2, list(world.models)
    design = choose(world.take(order[:half]), goal, seed, chain[-1])
    found = None if design is None else certify(design, world.take(order[half:size]), goal)
    if design is None or found is None:
        return Outcome(np.nan, np.nan, 0.0)
    fresh = world.take(order[half:])
    features = features_of(fresh)
    scores = [None if s is None else score_values(s.score, features, len(fresh)) for s in design.stages]
    data = chain_data(fresh, design.chain, scores, goal)
    stage = route_rows(data, found[0]).answered_by
    test = np.arange(len(fresh)) >= size - half
    return Outcome(
        _risk(data, stage, np.ones_like(test)),
        _risk(data, stage, test),
        float((stage[test] < data.checked).mean()),
    )


def _risk(data: ChainData, stage: Rows, rows: np.ndarray) -> float:
    """Return the largest error rate of a checked stage among what it accepts of `rows`; NaN without any."""
    taken = [(index, rows & (stage == index)) for index in range(data.checked)]
    risks = [float(1.0 - data.quality[here, index].mean()) for index, here in taken if here.any()]
    return max(risks, default=np.nan)


def pointwise(world: Outcomes, order: Rows, size: int, alpha: float, seed: int) -> tuple[Outcome, Outcome]:
    """Tune by the error measured on the calibration rows, and on the test rows; neither promises anything."""
    drawn, test, chain = world.take(order[:size]), world.take(order[size:]), list(world.models)
    stage = ensemble_of(drawn, seed).stage(tuple(chain[:-1]), chain[-1], "correct")
    if stage is None:
        raise ValueError("nothing to judge answers by")
    own, wrong = (1.0 - rows.models[chain[-2]].quality for rows in (drawn, test))
    score = score_values(stage.score, features_of(test), len(test))
    found = []
    for at in (lowest_threshold(stage.held_out, own, alpha), lowest_threshold(score, wrong, alpha)):
        taken = score >= at
        risk = float(wrong[taken].mean()) if taken.any() else np.nan
        found.append(Outcome(risk, risk, float(taken.mean())))
    return found[0], found[1]


def show(results: Sequence[Figures]) -> None:
    """Print the table."""
    rows = [
        [
            found["table"], f"{found['alpha']:g}", str(found["rows"]), shown(found, "certified_broken"),
            shown(found, "certified_seen_broken"), shown(found, "plain_broken"), shown(found, "refused"),
            *(f"{found[f'{kind}_coverage']:.3f}" for kind in ("certified", "plain", "oracle")),
        ]
        for found in results
    ]  # fmt: skip
    columns = [
        "table",
        "alpha",
        "rows",
        "broken: certified",
        "on test rows",
        "broken: plain",
        "refused",
        "accepted: certified",
    ]
    table(f"promise: risk ≤ alpha with delta {DELTA}", [*columns, "plain", "oracle"], rows)


if __name__ == "__main__":
    guarded(main)
