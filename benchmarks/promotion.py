"""How often `cascade promote` passes a worse model, and how many rows a good one takes: simulated rows.

    python benchmarks/promotion.py [--trials N] [--json]

Each trial draws up to 4,000 paired rows and looks after every one; epsilon 0.02, delta 0.05. The first models
are worse by exactly epsilon or by twice as much, the others as good or better.
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np

from cascade.policy.eprocess import SHARES

EPSILON, DELTA, ROWS = 0.02, 0.05, 4000
# shares of rows on which the new model is worse and better
WORSE = ((0.02, 0.0), (0.05, 0.03), (0.2, 0.18), (0.5, 0.48), (0.06, 0.02))
GOOD = ((0.0, 0.0), (0.01, 0.01), (0.03, 0.03), (0.02, 0.05), (0.03, 0.07))


def promoted(
    rng: np.random.Generator, worse: float, better: float, trials: int
) -> tuple[float, float | None]:
    """Return the share of trials in which the model was promoted, and the median of the rows that it took."""
    rows = []
    for _ in range(trials):
        values = rng.choice([-1, 0, 1], p=(worse, 1 - worse - better, better), size=ROWS)
        counts = {value: np.cumsum(values == value) for value in (-1, 0, 1)}
        logs = [
            sum(
                count * math.log1p(share / (1 - EPSILON) * (value + EPSILON))
                for value, count in counts.items()
            )
            for share in SHARES
        ]
        wealth = np.logaddexp.reduce(np.stack(logs), axis=0) - math.log(len(SHARES))
        passed = np.flatnonzero(wealth >= -math.log(DELTA))
        rows.append(passed[0] + 1 if len(passed) else np.inf)
    middle = float(np.median(rows))
    return float(np.isfinite(rows).mean()), middle if math.isfinite(middle) else None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(7)
    table = []
    for worse, better in (*WORSE, *GOOD):
        share, rows = promoted(rng, worse, better, options.trials)
        table.append({"worse": worse, "better": better, "promoted": share, "median_rows": rows})
    if options.json:
        print(json.dumps(table))
        return
    print("worse on  better on  difference  promoted  median rows")
    for row in table:
        worse, better, rows = row["worse"] or 0.0, row["better"] or 0.0, row["median_rows"]
        print(
            f"{worse:>8.0%}  {better:>9.0%}  {better - worse:>+10.2f}  {row['promoted']:>8.1%}  "
            f"{'—' if rows is None else f'{rows:.0f}':>11}"
        )


if __name__ == "__main__":
    main()
