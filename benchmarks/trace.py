"""What keeping traces costs, and how fast they are found again among a million.

    python benchmarks/trace.py [--runs 1000000] [--quick] [--json]

Real traces (the bundled experts on support.yaml, local-only, three stages) are the mould of all runs: each
takes one of them, a text of random words, a time, and numbers near the real ones. They are written by the
store's own commits. Beside it, the same runs in a plain sqlite3 table (id, time, JSON of the run; no other
index), asked the same. Writing: what `submit` takes of the caller's time, how long a run waits for its commit
(16 writers share one), and how many runs a second that makes. Every query is asked again with other values.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from common import GRAPHS, Figures, guarded, print_json, progress, table

from cascade import Cascade
from cascade.records import Request, Result, new_run_id
from cascade.trace.commit import commit
from cascade.trace.database import open_engine, parse_url
from cascade.trace.rows import Rows, to_rows
from cascade.trace.store import RunFilter, TraceStore
from cascade.trace.verify import verify

ASKED = (
    "my new card has still not come", "what is the weather in Ghent", "please help me with the thing",
    "how do I say good morning in Dutch", "move forty euros to my savings", "why was I charged twice",
    "is there milk left in the fridge", "turn the volume down", "who painted this", "what is my balance",
    "I have lost my passport abroad", "set an alarm for half past six",
)  # fmt: skip
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")
START = datetime(2026, 1, 1, tzinfo=UTC)
REPEATS = 40  # of each query, with other values
GROUP = 2000  # runs in one commit while the database is filled

T = TypeVar("T")


@dataclass
class Mould:
    """Real results and what is drawn from them."""

    results: list[Result]
    random: random.Random
    words: list[str]

    def draw(self, index: int, total: int) -> Result:
        """Return a run like one of the real ones, `index` of `total` in the course of 300 days."""
        rng, real = self.random, self.random.choice(self.results)
        family = rng.choices(("support", "desk", "legal"), (90, 9, 1))[0]
        begun = START + timedelta(days=300 * index / total, seconds=rng.random())
        name = new_run_id()
        text = " ".join(rng.choices(self.words, k=rng.randint(4, 14)))
        sure = None if real.confidence is None else min(1.0, max(0.0, real.confidence + rng.gauss(0, 0.05)))
        return real.model_copy(
            update={
                "run": name,
                "graph": f"{family}@{index * 5 // total:08x}",
                "confidence": sure,
                "cost_usd": rng.choices((0.0, rng.lognormvariate(-7, 1)), (80, 20))[0],
                "tier": rng.choices((real.tier, "opus"), (97, 3))[0],
                "started": begun.isoformat(timespec="milliseconds"),
                "seconds": rng.lognormvariate(-3, 1),
                "request": Request(text=text),
            }
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="20,000 runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--folder", type=Path, help="where the databases are made; default: a temporary folder"
    )
    args = parser.parse_args()
    total = 20_000 if args.quick else args.runs
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        figures = measure(Path(folder), total)
    figures |= {"benchmark": "trace", "runs": total, "load_before": load, "cpus": os.cpu_count()}
    if args.json:
        print_json(figures)
    else:
        show(figures)


def measure(folder: Path, total: int) -> Figures:
    """Return all figures."""
    mould = Mould(real_results(), random.Random(0), [])
    mould.words = [
        "".join(mould.random.choices(SYLLABLES, k=mould.random.randint(2, 4))) for _ in range(3000)
    ]
    figures: Figures = {"steps": steps_of(mould), "writing": writing(folder, mould)}
    store, plain = folder / "store.db", folder / "plain.db"
    figures["filling"] = fill(store, plain, mould, total)
    figures["bytes_per_run"] = {
        "store": store.stat().st_size / total,
        "plain": plain.stat().st_size / total,
    }
    figures["queries"] = queries(store, plain, mould)
    begun = time.perf_counter()
    assert verify(str(store)).count == 0
    figures["verify_us_per_run"] = (time.perf_counter() - begun) / total * 1e6
    return figures


def real_results() -> list[Result]:
    """Return what the bundled experts make of the texts."""
    with Cascade.load(GRAPHS / "support.yaml", record=False) as cascade:
        return cascade.batch(ASKED, local_only=True)


def steps_of(mould: Mould) -> Figures:
    """Return how large the real traces are."""
    steps = [len(result.trace) for result in mould.results]
    made = [sum(len(step.calls) for step in result.trace) for result in mould.results]
    return {"steps": float(np.mean(steps)), "calls": float(np.mean(made))}


def writing(folder: Path, mould: Mould) -> Figures:
    """Return what storing a run costs, of the caller's time and until it is on the disk."""
    figures: Figures = {}
    runs = [mould.draw(index, 2000) for index in range(2000)]
    with TraceStore(str(folder / "writing.db")) as store:
        for run in runs[:100]:
            store.write(run)
        taken = timed(store.submit, runs[100:600])
        figures["submit_ms"] = summary(taken)
        store.write(runs[600])  # all before it are stored now
        figures["durable_ms"] = summary(timed(store.write, runs[601:800]))
        begun = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(store.write, runs[800:]))
        figures["runs_per_second_16_writers"] = len(runs[800:]) / (time.perf_counter() - begun)
    with closing(baseline(folder / "writing-plain.db")) as connection:
        taken = timed(lambda run: insert_plain(connection, [run]), runs[:200])
        figures["plain_durable_ms"] = summary(taken)
    return figures


def baseline(path: Path) -> sqlite3.Connection:
    """Return a connection to a table as one might make it in five minutes."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE runs (id TEXT PRIMARY KEY, started TEXT, body TEXT)")
    return connection


def insert_plain(connection: sqlite3.Connection, runs: list[Result]) -> None:
    """Store runs in the plain table."""
    rows = [(run.run, run.started, run.model_dump_json()) for run in runs]
    connection.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
    connection.commit()


def timed(act: Callable[[T], object], items: Iterable[T]) -> list[float]:
    """Return how long each took, in seconds."""
    taken = []
    for item in items:
        begun = time.perf_counter()
        act(item)
        taken.append(time.perf_counter() - begun)
    return taken


def summary(taken: list[float]) -> Figures:
    """Return median, 95th percentile and the slowest, in milliseconds."""
    values = np.array(taken) * 1000
    return {
        "p50": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "max": float(values.max()),
    }


def fill(store: Path, plain: Path, mould: Mould, total: int) -> Figures:
    """Write `total` runs to both databases; return how long that took of each."""
    engine = open_engine(parse_url(str(store)), create=True)
    assert engine is not None
    seconds = {"store": 0.0, "plain": 0.0}
    with closing(baseline(plain)) as connection, progress() as bar:
        task = bar.add_task("filling", total=total)
        for first in range(0, total, GROUP):
            group = [mould.draw(index, total) for index in range(first, min(total, first + GROUP))]
            begun = time.perf_counter()
            rows: list[Rows] = [to_rows(run) for run in group]
            error = commit(engine, rows)
            if error is not None:
                raise error
            middle = time.perf_counter()
            insert_plain(connection, group)
            seconds["store"] += middle - begun
            seconds["plain"] += time.perf_counter() - middle
            bar.update(task, advance=len(group))
    engine.dispose()
    with TraceStore(str(store)) as graded:
        for row in graded.runs(limit=200):
            graded.grade(row.run, mould.random.random() < 0.8)
    return {"seconds": seconds, "ms_per_run": {name: value / total * 1000 for name, value in seconds.items()}}


def queries(path: Path, plain: Path, mould: Mould) -> dict[str, Figures]:
    """Return how long each query takes, in both databases."""
    found: dict[str, Figures] = {}
    with TraceStore(str(path), create=False) as store, closing(sqlite3.connect(plain)) as connection:
        names = [row.run for row in store.runs(limit=1)]
        names += list(connection.execute("SELECT id FROM runs ORDER BY random() LIMIT 40").fetchall())
        opened = [name if isinstance(name, str) else name[0] for name in names]
        for title, (ask, sql) in catalogue(mould, opened).items():
            figures: Figures = {"store": summary(timed(partial(ask, store), range(REPEATS)))}
            if sql is not None:
                figures["plain"] = summary(timed(partial(ask_plain, connection, sql), range(3)))
            found[title] = figures
    return found


def ask_plain(connection: sqlite3.Connection, sql: Sql, index: int) -> None:
    """Ask the plain table, and read the runs that it gives."""
    for (body,) in connection.execute(*sql(index)):
        Result.model_validate_json(body)


Ask = Callable[[TraceStore, int], object]
Sql = Callable[[int], tuple[str, tuple[Any, ...]]]


def catalogue(mould: Mould, names: list[str]) -> dict[str, tuple[Ask, Sql | None]]:
    """Return each query: of the store, and of the plain table."""
    rng, words = mould.random, mould.words

    def by(column: str, test: str, *values: Any) -> Sql:
        field = f"json_extract(body, '$.{column}') {test}"
        sql = f"SELECT body FROM runs WHERE {field} ORDER BY id DESC LIMIT 50"  # noqa: S608 - our own
        return lambda index: (sql, (values[index % len(values)],))

    def like(texts: list[str]) -> Sql:
        sql = "SELECT body FROM runs WHERE body LIKE ? ORDER BY id DESC LIMIT 50"
        return lambda index: (sql, (f"%{texts[index % len(texts)]}%",))

    def wanted(**choices: list[Any]) -> Ask:
        return lambda store, index: store.search(
            RunFilter(**{name: values[index % len(values)] for name, values in choices.items()})
        )

    common = [word[:4] for word in rng.sample(words, 20)]
    pairs = [
        f"{first} {second}"
        for first, second in zip(rng.sample(words, 20), rng.sample(words, 20), strict=True)
    ]
    old = [(START + timedelta(days=day)).isoformat(timespec="milliseconds") for day in (3, 30, 60, 150, 250)]
    newest = "SELECT body FROM runs ORDER BY id DESC LIMIT 50"
    return {
        "newest 50": (lambda store, _: store.runs(), lambda _: (newest, ())),
        "a later page": (lambda store, index: store.runs(before=names[index % len(names)]), None),
        "open a run": (
            lambda store, index: store.get(names[index % len(names)]),
            lambda index: ("SELECT body FROM runs WHERE id = ?", (names[index % len(names)],)),
        ),
        "graph": (wanted(graph=["support", "desk", "legal", "none"]), by("graph", "LIKE ?", "legal@%")),
        "graph@digest": (wanted(graph=["support@00000000", "legal@00000001", "desk@00000004"]), None),
        "status": (wanted(status=["accepted", "abstained", "waiting"]), by("status", "= ?", "waiting")),
        "tier": (wanted(tier=["haiku", "sonnet", "opus"]), by("tier", "= ?", "opus")),
        "rule": (wanted(rule=["confident", "over_cost", "local_only"]), by("rule", "= ?", "over_cost")),
        "confidence": (
            wanted(confidence_min=[0.1, 0.9, 0.999, None], confidence_max=[None, None, None, 0.2]),
            by("confidence", ">= ?", 0.999),
        ),
        "cost": (wanted(cost_min=[0.0001, 0.001, 0.01, 0.05]), by("cost_usd", ">= ?", 0.05)),
        "time, until": (wanted(until=old), by("started", "< ?", *old)),
        "time, since and until": (wanted(since=old[:4], until=old[1:]), None),
        "grade": (wanted(grade=["right", "wrong", "none"]), None),
        "text, four letters": (wanted(contains=common), like(common)),
        "text, two words": (wanted(contains=pairs), like(pairs)),
        "text, nowhere": (wanted(contains=["xylophone", "quartz"]), like(["xylophone"])),
        "text and graph": (wanted(contains=common, graph=["legal", "desk", "support"]), None),
        "tier, cost and until": (wanted(tier=["opus"], cost_min=[0.001, 0.01], until=old), None),
        "status and confidence": (wanted(status=["abstained", "accepted"], confidence_max=[0.3, 0.6]), None),
        "dashboard, newest 5000": (lambda store, _: store.overview(RunFilter()), None),
    }


def show(figures: Figures) -> None:
    """Print tables."""
    load = figures["load_before"]
    busy = " (busy: figures are too high)" if load > 0.5 * (figures["cpus"] or 1) else ""
    real = figures["steps"]
    print(f"{figures['runs']:,} runs of {real['steps']:.1f} steps and {real['calls']:.1f} calls; "
          f"load before {load:.2f} on {figures['cpus']} processors{busy}")  # fmt: skip
    writing = figures["writing"]
    rows = [
        [name, *(f"{writing[name][key]:.3f}" for key in ("p50", "p95", "max"))]
        for name in ("submit_ms", "durable_ms", "plain_durable_ms")
    ]
    table("Writing one run, ms", ["", "p50", "p95", "max"], rows)
    print(f"16 writers: {writing['runs_per_second_16_writers']:.0f} runs/s")
    filling, size = figures["filling"]["ms_per_run"], figures["bytes_per_run"]
    print(f"filling: {filling['store']:.3f} ms a run, plain {filling['plain']:.3f}; "
          f"{size['store']:.0f} bytes a run, plain {size['plain']:.0f}")  # fmt: skip
    rows = []
    for title, found in figures["queries"].items():
        plain = found.get("plain")
        ratio = f"{plain['p50'] / found['store']['p50']:.0f} ×" if plain else "–"
        cells = [f"{found['store'][key]:.1f}" for key in ("p50", "p95", "max")]
        rows.append([title, *cells, f"{plain['p50']:.1f}" if plain else "–", ratio])
    table("Queries, ms", ["", "p50", "p95", "max", "plain p50", "faster"], rows)
    print(f"verify: {figures['verify_us_per_run']:.0f} µs a run")


if __name__ == "__main__":
    guarded(main)
