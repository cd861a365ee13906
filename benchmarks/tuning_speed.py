"""How long tuning takes, and how much memory: one large made-up table.

    python benchmarks/tuning_speed.py [--table-rows 100000] [--models 5] [--json]

Later models are better and dearer, confidence is honest, answers can agree, and a word in the prompt says how
hard a row is, so that scores, agreement and the gate on the prompt all have something to learn. Wall time
and CPU time of `tune --max-loss` alone, what other processes used of the machine meanwhile, and the peak of
the process's memory, the table included. The aim: less than 60 s and 2 GB on two cores.
"""

from __future__ import annotations

import argparse
import resource

import numpy as np
from common import Figures, Stopwatch, guarded, print_json, table

from cascade.lab.tuning.promise import Refusal
from cascade.lab.tuning.tune import tune
from cascade.policy.artifact import Goal
from cascade.policy.table import ModelOutcomes, Outcomes

GOAL = Goal(kind="max_loss", value=0.05, delta=0.1)
SECONDS, BYTES = 60.0, 2e9


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true", help="print one JSON object in place of tables")
    arguments.add_argument("--quick", action="store_true", help="a tenth of the rows")
    arguments.add_argument("--table-rows", type=int, default=100_000, help="rows of the table")
    arguments.add_argument("--models", type=int, default=5, help="models of the table")
    args = arguments.parse_args()
    rows = args.table_rows // 10 if args.quick else args.table_rows
    made = drawn(rows, args.models)
    clock = Stopwatch()
    policy = tune(made, GOAL)
    found: Figures = {"rows": rows, "models": args.models, **clock.figures()}
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["chain"] = [] if isinstance(policy, Refusal) else list(policy.chain)
    if args.json:
        print_json({"benchmark": "tuning_speed", **found})
        return
    cells = [
        f"{rows:,} × {args.models}", f"{found['seconds']:.1f} s", f"{found['cpu_seconds']:.1f} s",
        f"{found['others_cores']:.2f} cores", f"{found['peak_bytes'] / 1e6:,.0f} MB",
        " → ".join(found["chain"]),
    ]  # fmt: skip
    columns = ["rows × models", "wall time", "CPU time", "others used", "peak memory", "chain"]
    table(f"tune --max-loss; the aim is {SECONDS:g} s and {BYTES / 1e9:g} GB", columns, [cells])


def drawn(rows: int, models: int) -> Outcomes:
    """Return a table of `models` models."""
    random = np.random.default_rng(0)
    hard, columns = random.normal(size=rows), {}
    for place in range(models):
        chance = 1 / (1 + np.exp(-(1.0 + 2.4 * place / (models - 1) - 1.5 * hard)))
        right, wrong = random.random(rows) < chance, random.integers(9, size=rows)
        columns[f"model{place}"] = ModelOutcomes(
            quality=right.astype(float),
            cost_usd=np.full(rows, 1e-5 * 10.0 ** (3 * place / (models - 1))),
            seconds=np.full(rows, 0.1 + place),
            confidence=np.clip(chance + 0.05 * random.normal(size=rows), 0.001, 0.999),
            signals={"p10": chance**2, "mean": chance + 0.1 * random.normal(size=rows)},
            texts=["yes" if good else f"no {bad}" for good, bad in zip(right, wrong, strict=True)],
        )
    prompts = [f"{'x ' * int(max(0, 3 * value))}question {row} of them" for row, value in enumerate(hard)]
    return Outcomes([str(row) for row in range(rows)], prompts, columns, {}, "0" * 64)


if __name__ == "__main__":
    guarded(main)
