"""How often `cascade monitor` cries wolf, and how soon it sees a change: simulated scores, no model.

    python benchmarks/drift.py [--trials N] [--json]

Scores are Beta(4, 1), of which a threshold of 0.7 accepts 76 %, or votes (1/3, 2/3, 1). False alarms: the
share of trials with an alarm within 3,000 live runs like the reference, its threshold the reference's own
20 % quantile, delta 0.1. Detection: live scores are Beta(b, 1) instead, up to 5,000 runs, delta 0.01.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cascade.lab.monitoring.drift import Reference, drift
from cascade.policy.calibrate import thin

Draw = Callable[[int], NDArray[np.float64]]
ACCEPT = 0.7


def alarm(then: NDArray[np.float64], now: NDArray[np.float64], accept: float, delta: float) -> int | None:
    """Return the live run that raised the alarm, if one did."""
    reference = Reference(by="labels", signal="top1", rows=len(then), scores=thin(then.tolist()))
    return drift(reference, now.tolist(), accept=accept, confidence=float, delta=delta).since


def false_alarms(draw: Draw, rows: int, trials: int) -> float:
    """Return the share of trials with an alarm although nothing changed."""
    found = 0
    for _ in range(trials):
        then = draw(rows)
        found += alarm(then, draw(3000), float(np.quantile(then, 0.2)), 0.1) is not None
    return found / trials


def detection(rng: np.random.Generator, rows: int, shape: float, trials: int) -> tuple[float, float | None]:
    """Return the share of trials in which the change was seen, and the median of the runs it took."""
    found = [alarm(rng.beta(4, 1, rows), rng.beta(shape, 1, 5000), ACCEPT, 0.01) for _ in range(trials)]
    middle = float(np.median([np.inf if run is None else run + 1 for run in found]))
    return sum(run is not None for run in found) / trials, middle if np.isfinite(middle) else None


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    draws: dict[str, Draw] = {
        "smooth": lambda count: rng.beta(4, 1, count),
        "votes": lambda count: rng.choice([1 / 3, 2 / 3, 1.0], count, p=[0.1, 0.2, 0.7]),
    }
    alarms = {
        f"{name}, {rows} rows": false_alarms(draw, rows, options.trials)
        for name, draw in draws.items()
        for rows in (50, 300, 1000, 3000)
    }
    seen = [
        {
            "rows": rows,
            "accepted_then": 1 - ACCEPT**4,
            "accepted_now": 1 - ACCEPT**shape,
            "seen": share,
            "runs": runs,
        }
        for rows in (300, 1000, 3000)
        for shape in (3.5, 3.0, 2.5, 2.0, 1.0)
        for share, runs in [detection(rng, rows, shape, options.trials)]
    ]
    if options.json:
        print(json.dumps({"false_alarms": alarms, "detection": seen}))
        return
    for name, share in alarms.items():
        print(f"{name:<18} false alarms {share:.1%} (10 % allowed)")
    for row in seen:
        runs = "—" if row["runs"] is None else f"{row['runs']:.0f}"
        print(
            f"{row['rows']:>5} rows  accepted {row['accepted_then']:.0%} → {row['accepted_now']:.0%}  "
            f"seen {row['seen']:>4.0%}  median {runs:>5} runs"
        )


if __name__ == "__main__":
    main()
