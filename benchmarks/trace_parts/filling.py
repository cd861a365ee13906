"""Fills a large trace database, and a plain table, with runs generated from real ones."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from common import GRAPHS, Figures, progress

from cascade import Cascade
from cascade.records import Request, Result, new_run_id
from cascade.trace import TraceStore
from cascade.trace._rows import RunRows, to_rows
from cascade.trace._writing import commit_runs
from cascade.trace.database import open_engine, parse_url

REQUESTS = (
    "my new card has still not come", "what is the weather in Ghent", "please help me with the thing",
    "how do I say good morning in Dutch", "move forty euros to my savings", "why was I charged twice",
    "is there milk left in the fridge", "turn the volume down", "who painted this", "what is my balance",
    "I have lost my passport abroad", "set an alarm for half past six",
)  # fmt: skip
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")
START = datetime(2026, 1, 1, tzinfo=UTC)
GROUP = 2000  # runs in one commit


def some_words() -> list[str]:
    """Return the words that texts are made of; always the same."""
    rng = random.Random(0)
    return ["".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))) for _ in range(3000)]


@dataclass
class Generator:
    """Generates runs from real results."""

    results: list[Result]
    random: random.Random
    words: list[str]

    def draw(self, index: int, total: int) -> Result:
        """Return a run like one of the real ones: number `index` of `total`, spread over 300 days."""
        rng, real = self.random, self.random.choice(self.results)
        family = rng.choices(("support", "desk", "legal"), (90, 9, 1))[0]
        started = START + timedelta(days=300 * index / total, seconds=rng.random())
        name = new_run_id()
        text = " ".join(rng.choices(self.words, k=rng.randint(4, 14)))
        confidence = (
            None if real.confidence is None else min(1.0, max(0.0, real.confidence + rng.gauss(0, 0.05)))
        )
        return real.model_copy(
            update={
                "run": name,
                "graph": f"{family}@{index * 5 // total:08x}",
                "confidence": confidence,
                "cost_usd": rng.choices((0.0, rng.lognormvariate(-7, 1)), (80, 20))[0],
                "tier": rng.choices((real.tier, "opus"), (97, 3))[0],
                "started": started.isoformat(timespec="milliseconds"),
                "seconds": rng.lognormvariate(-3, 1),
                "request": Request(text=text),
            }
        )


def make_generator() -> Generator:
    """Return a generator based on what the bundled experts answer to a few texts."""
    with Cascade.load(GRAPHS / "support.yaml", record=False) as cascade:
        return Generator(cascade.batch(REQUESTS, local_only=True), random.Random(0), some_words())


def size_of(generator: Generator) -> Figures:
    """Return the average numbers of steps and calls in the real traces."""
    steps = [len(result.trace) for result in generator.results]
    calls = [sum(len(step.calls) for step in result.trace) for result in generator.results]
    return {"steps": float(np.mean(steps)), "calls": float(np.mean(calls))}


def baseline(path: Path) -> sqlite3.Connection:
    """Return a connection to a table as one might write it in five minutes."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE runs (id TEXT PRIMARY KEY, started TEXT, body TEXT)")
    return connection


def insert_plain(connection: sqlite3.Connection, runs: list[Result]) -> None:
    """Store runs in the plain table."""
    rows = [(run.run, run.started, run.model_dump_json()) for run in runs]
    connection.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
    connection.commit()


def fill(store: Path, plain: Path, total: int) -> Figures:
    """Write `total` runs to both databases; return the time and the bytes per run of each."""
    generator = make_generator()
    engine = open_engine(parse_url(str(store)), create=True)
    assert engine is not None
    seconds = {"store": 0.0, "plain": 0.0}
    with closing(baseline(plain)) as connection, progress() as bar:
        task = bar.add_task("filling", total=total)
        for first in range(0, total, GROUP):
            group = [generator.draw(index, total) for index in range(first, min(total, first + GROUP))]
            start = time.perf_counter()
            rows: list[RunRows] = [to_rows(run) for run in group]
            error = commit_runs(engine, rows)
            if error is not None:
                raise error
            middle = time.perf_counter()
            insert_plain(connection, group)
            seconds["store"] += middle - start
            seconds["plain"] += time.perf_counter() - middle
            bar.update(task, advance=len(group))
    engine.dispose()
    with TraceStore(str(store)) as graded:
        for row in graded.runs(limit=200):
            graded.grade(row.run, generator.random.random() < 0.8)
    return size_of(generator) | {
        "ms_per_run": {name: value / total * 1000 for name, value in seconds.items()},
        "bytes_per_run": {path.stem: path.stat().st_size / total for path in (store, plain)},
    }
