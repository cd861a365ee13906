"""Thresholds of the bundled graphs, chosen on validation rows only.

    python benchmarks/thresholds.py --data DIR [--graphs support banking threats] [--risk 0.015] [--json]

For every pair of thresholds on a grid: which rows would the first and the second stage accept, how many of
the in-scope ones wrongly, and how many out-of-scope rows with an intent. Printed is the pair that answers
most in-scope rows within --risk (and --oos-risk), which is what the graph files hold. The test rows are
never read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import GRAPHS, Figures, guarded, parser, print_json, rate, shown, table
from published import OOS, Row, load

from cascade.config.load import LoadedGraph, load_graph
from cascade.graph.stage import Plan, run_stage
from cascade.models import build_model
from cascade.records import Request
from cascade.spec.parts import Limits
from cascade.spec.schema import Stage

SETS = {"support": "clinc150", "banking": "banking77", "threats": "tram"}
GRID = np.round(np.arange(0.5, 0.9951, 0.005), 3)


@dataclass(frozen=True)
class Asked:
    """What a stage said of each row: its confidence (-1 without one), and whether it was right."""

    confidence: np.ndarray
    right: np.ndarray


def main() -> None:
    """Choose and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--graphs", nargs="+", choices=list(SETS), default=list(SETS))
    arguments.add_argument("--risk", type=float, default=0.015, help="error among accepted in-scope rows")
    arguments.add_argument("--oos-risk", type=float, default=0.02, help="out-of-scope rows wrongly accepted")
    args = arguments.parse_args()
    found = [choose(name, args.data, args.risk, args.oos_risk) for name in args.graphs]
    if args.json:
        print_json({"benchmark": "thresholds", "risk": args.risk, "graphs": found})
        return
    columns = ["graph", "accept", "in-scope rows accepted", "wrong among them", "oos rows wrongly accepted"]
    rows = [
        [f["graph"], ", ".join(f"{n} {t:g}" for n, t in f["accept"].items()), *(shown(f, k) for k in KEYS)]
        for f in found
    ]
    table(f"thresholds on validation rows, risk at most {args.risk:g}", columns, rows)


KEYS = ("coverage", "risk", "oos_wrong")


def choose(name: str, data: Path, risk: float, oos_risk: float) -> Figures:
    """Return the thresholds of graph `name` with the highest coverage within the risks."""
    loaded = load_graph(GRAPHS / f"{name}.yaml")
    rows = load(SETS[name], data).val
    stages = [stage for stage in loaded.graph.stages if stage.confidence is not None]
    asked = asyncio.run(ask_all(loaded, stages, rows))
    inside = np.array([row.label != OOS for row in rows])
    best: tuple[float, Figures] = (-1.0, {"graph": name, "accept": {}})
    grids = np.array(np.meshgrid(*[GRID] * len(stages))).reshape(len(stages), -1).T
    for thresholds in grids:
        taken, wrong = accepted(asked, thresholds)
        n, errors = int((taken & inside).sum()), int((taken & wrong & inside).sum())
        strays = int((taken & wrong & ~inside).sum())
        if errors > risk * n or strays > oos_risk * max(1, int((~inside).sum())) or n <= best[0]:
            continue
        best = (
            n,
            {
                "graph": name,
                "accept": {s.name: float(t) for s, t in zip(stages, thresholds, strict=True)},
                **rate("coverage", n, int(inside.sum())),
                **rate("risk", errors, n),
                **rate("oos_wrong", strays, int((~inside).sum())),
            },
        )
    return best[1]


def accepted(asked: list[Asked], thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows some stage accepts, and for which of them the first such stage is wrong."""
    takes = np.array([a.confidence >= t for a, t in zip(asked, thresholds, strict=True)])
    first = takes.argmax(axis=0)
    right = np.array([a.right for a in asked])[first, np.arange(takes.shape[1])]
    return np.asarray(takes.any(axis=0)), ~right


async def ask_all(loaded: LoadedGraph, stages: Sequence[Stage], rows: Sequence[Row]) -> list[Asked]:
    """Ask every checked stage about every row, with its calibration and without limits."""
    graph = loaded.graph.model_copy(update={"limits": Limits()})
    models = {name: build_model(name, config, loaded.base) for name, config in graph.models.items()}
    plan = Plan(graph, models, loaded.calibrations)
    slots = asyncio.Semaphore(16)

    async def one(stage: Stage, row: Row) -> tuple[float, bool]:
        async with slots:
            step = await run_stage(plan, stage, Request(text=row.text), ())
        if step.estimate is None:
            return -1.0, False
        return step.estimate.confidence, step.calls[step.estimate.chosen].text == row.label

    found = []
    for stage in stages:
        pairs = await asyncio.gather(*(one(stage, row) for row in rows))
        found.append(Asked(np.array([c for c, _ in pairs]), np.array([r for _, r in pairs])))
    await asyncio.gather(*(model.aclose() for model in models.values()))
    return found


if __name__ == "__main__":
    guarded(main)
