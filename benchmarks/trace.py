"""What storing traces costs, and how fast they are found among a million.

    python benchmarks/trace.py [--runs 1000000] [--quick] [--json] [--folder DIR [--only PHASE]]

Runs are generated from real traces (the bundled experts on support.yaml, local-only, three stages): each
combines one of them with a text of random words, a time, and numbers near the real ones. The store's own
commits write them. The baseline is a plain sqlite3 table (id, time, JSON of the run; no other index) with the
same runs and queries.

Phases: `write` (how long `submit` takes, how long a run waits for its commit, and how many runs a second 16
writers store), `fill`, `ask` (every query 40 times with different values), `ask-plain`, `verify`. With
--folder, databases and figures are kept there, and a later call runs only the missing phases, or the one that
--only names.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from common import Figures, guarded, print_json, table
from trace_parts.asking import ask, ask_plain
from trace_parts.filling import fill
from trace_parts.writing import write

from cascade.errors import TraceError
from cascade.trace import verify

PHASES = ("write", "fill", "ask", "ask-plain", "verify")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="20,000 runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help="keep the databases here; default: a temporary folder")
    parser.add_argument("--only", choices=PHASES, help="measure only this phase, again if necessary")
    args = parser.parse_args()
    total = 20_000 if args.quick else args.runs
    if args.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(Path(folder), total, args.only)
    else:
        args.folder.mkdir(parents=True, exist_ok=True)
        figures = measure(args.folder, total, args.only)
    if args.json:
        print_json(figures)
    else:
        show(figures)


def measure(folder: Path, total: int, only: str | None) -> Figures:
    """Return all figures, including those kept in the folder."""
    cache = folder / "figures.json"
    figures: Figures = json.loads(cache.read_text()) if cache.exists() else {"runs": total, "phases": {}}
    if figures["runs"] != total:
        raise TraceError(
            f"{folder} has {figures['runs']} runs; expected {total}; give another --folder or --runs"
        )
    phases: dict[str, Figures] = figures["phases"]
    for name in PHASES if only is None else (only,):
        if only is not None or name not in phases:
            context = {
                "load_before": os.getloadavg()[0],
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            phases[name] = context | {"figures": phase(name, folder, total)}
            cache.write_text(json.dumps(figures))
    return {"benchmark": "trace", "cpus": os.cpu_count()} | figures


def phase(name: str, folder: Path, total: int) -> Figures:
    """Return the figures of one phase."""
    store, plain = folder / "store.db", folder / "plain.db"
    if name == "write":
        with tempfile.TemporaryDirectory(dir=folder) as new:
            return write(Path(new))
    if name == "fill":
        for path in (store, plain):
            for file in path.parent.glob(path.name + "*"):  # left by an interrupted fill
                file.unlink()
        return fill(store, plain, total)
    if not store.exists():
        raise TraceError(f"{folder} has no runs to {name}; `--only fill` first")
    if name == "verify":
        start = time.perf_counter()
        problems = verify(str(store)).count
        return {"problems": problems, "us_per_run": (time.perf_counter() - start) / total * 1e6}
    return ask(store, plain) if name == "ask" else ask_plain(plain)


def show(figures: Figures) -> None:
    """Print tables."""
    phases = {name: measured["figures"] for name, measured in figures["phases"].items()}
    print(f"{figures['runs']:,} runs, {figures['cpus']} processors")
    for name, measured in figures["phases"].items():
        load = measured["load_before"]
        busy = " (busy: figures are too high)" if load > 0.5 * (figures["cpus"] or 1) else ""
        print(f"{name}: {measured['at']}, load before {load:.2f}{busy}")
    if "write" in phases:
        show_writing(phases["write"])
    if "fill" in phases:
        filled = phases["fill"]
        per_run, size = filled["ms_per_run"], filled["bytes_per_run"]
        print(f"filling: {filled['steps']:.1f} steps and {filled['calls']:.1f} calls a run; "
              f"{per_run['store']:.3f} ms, plain {per_run['plain']:.3f}; "
              f"{size['store']:.0f} bytes, plain {size['plain']:.0f}")  # fmt: skip
    if "ask" in phases:
        show_queries(phases["ask"], phases.get("ask-plain", {}))
    if "verify" in phases:
        print(f"verify: {phases['verify']['us_per_run']:.0f} µs a run")


def show_writing(writing: Figures) -> None:
    """Print the cost of writing."""
    rows = [
        [name, *(f"{writing[name][key]:.3f}" for key in ("p50", "p95", "max"))]
        for name in ("submit_ms", "durable_ms", "plain_durable_ms")
    ]
    table("Writing one run, ms", ["", "p50", "p95", "max"], rows)
    print(f"16 writers: {writing['runs_per_second_16_writers']:.0f} runs/s")


def show_queries(store: Figures, baseline: Figures) -> None:
    """Print how long queries take."""
    rows = []
    for title, times in store.items():
        plain = baseline.get(title)
        ratio = f"{plain['p50'] / times['p50']:.0f} ×" if plain else "–"
        cells = [f"{times[key]:.1f}" for key in ("p50", "p95", "max", "processor_p95")]
        rows.append([title, *cells, f"{plain['p50']:.1f}" if plain else "–", ratio])
    table("Queries, ms", ["", "p50", "p95", "max", "processor p95", "plain p50", "faster"], rows)


if __name__ == "__main__":
    guarded(main)
