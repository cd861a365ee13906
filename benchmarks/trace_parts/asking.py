"""How long queries take, each repeated with different values."""

from __future__ import annotations

import gc
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from common import Figures

from cascade.records import Result
from cascade.serve.dashboard import summarise
from cascade.trace import RunFilter, TraceStore
from trace_parts.filling import START, some_words
from trace_parts.timing import summary, timed

REPEATS = 40  # of each query
REPEATS_PLAIN = 3

Ask = Callable[[TraceStore, int], object]
Sql = Callable[[int], tuple[str, tuple[Any, ...]]]


def ask(store: Path, plain: Path) -> dict[str, Figures]:
    """Return how long each query of the store takes, in milliseconds."""
    gc.freeze()  # as `cascade ui` does
    with TraceStore(str(store), create=False) as opened:
        return {
            title: summary(timed(partial(query, opened), range(REPEATS)))
            for title, (query, _) in catalogue(plain).items()
        }


def ask_plain(plain: Path) -> dict[str, Figures]:
    """Return how long those queries that the plain table can answer take there, in milliseconds."""
    with closing(sqlite3.connect(plain)) as connection:
        return {
            title: summary(timed(partial(_read, connection, sql), range(REPEATS_PLAIN)))
            for title, (_, sql) in catalogue(plain).items()
            if sql is not None
        }


def _read(connection: sqlite3.Connection, sql: Sql, index: int) -> None:
    """Query the plain table and parse the runs."""
    for (body,) in connection.execute(*sql(index)):
        Result.model_validate_json(body)


def _some_runs(plain: Path) -> list[str]:
    """Return the ids of the newest run and of 40 others, evenly spread."""
    with closing(sqlite3.connect(plain)) as connection:
        last = connection.execute("SELECT max(rowid) FROM runs").fetchone()[0]
        numbers = [last, *(1 + last * index // 40 for index in range(40))]
        random.Random(1).shuffle(numbers)
        query = "SELECT id FROM runs WHERE rowid = ?"
        return [connection.execute(query, (number,)).fetchone()[0] for number in numbers]


def catalogue(plain: Path) -> dict[str, tuple[Ask, Sql | None]]:
    """Return each query: for the store, and for the plain table if it can answer it."""
    rng, words, names = random.Random(0), some_words(), _some_runs(plain)

    def by(column: str, test: str, *values: Any) -> Sql:
        field = f"json_extract(body, '$.{column}') {test}"
        sql = f"SELECT body FROM runs WHERE {field} ORDER BY id DESC LIMIT 50"  # noqa: S608 - our own
        return lambda index: (sql, (values[index % len(values)],))

    def like(texts: list[str]) -> Sql:
        sql = "SELECT body FROM runs WHERE body LIKE ? ORDER BY id DESC LIMIT 50"
        return lambda index: (sql, (f"%{texts[index % len(texts)]}%",))

    def search(**choices: list[Any]) -> Ask:
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
        "graph": (search(graph=["support", "desk", "legal", "none"]), by("graph", "LIKE ?", "legal@%")),
        "graph@digest": (search(graph=["support@00000000", "legal@00000001", "desk@00000004"]), None),
        "status": (search(status=["accepted", "abstained", "waiting"]), by("status", "= ?", "waiting")),
        "tier": (search(tier=["haiku", "sonnet", "opus"]), by("tier", "= ?", "opus")),
        "rule": (search(rule=["confident", "over_cost", "local_only"]), by("rule", "= ?", "over_cost")),
        "confidence": (
            search(confidence_min=[0.1, 0.9, 0.999, None], confidence_max=[None, None, None, 0.2]),
            by("confidence", ">= ?", 0.999),
        ),
        "cost": (search(cost_min=[0.0001, 0.001, 0.01, 0.05]), by("cost_usd", ">= ?", 0.05)),
        "time, until": (search(until=old), by("started", "< ?", *old)),
        "time, since and until": (search(since=old[:4], until=old[1:]), None),
        "grade": (search(grade=["right", "wrong", "none"]), None),
        "text, four letters": (search(contains=common), like(common)),
        "text, two words": (search(contains=pairs), like(pairs)),
        "text, nowhere": (search(contains=["xylophone", "quartz"]), like(["xylophone"])),
        "text and graph": (search(contains=common, graph=["legal", "desk", "support"]), None),
        "text and an old graph@digest": (search(contains=common, graph=["legal@00000000"]), None),
        "tier, cost and until": (search(tier=["opus"], cost_min=[0.001, 0.01], until=old), None),
        "status and confidence": (search(status=["abstained", "accepted"], confidence_max=[0.3, 0.6]), None),
        "status and until": (search(status=["accepted", "abstained"], until=old), None),
        "status and grade": (search(status=["accepted", "abstained"], grade=["wrong"]), None),
        "two common, none together": (
            search(status=["accepted"], rule=["local_only", None], confidence_max=[None, 0.6]), None
        ),
        "text and two common, none together": (
            search(contains=common, status=["accepted"], rule=["local_only"]), None
        ),
        "graph, status and cost, none": (search(graph=["desk"], status=["waiting"], cost_min=[0.001]), None),
        "tier and rule, few": (search(tier=["opus"], rule=["over_cost", "no_estimate"]), None),
        "dashboard": (lambda store, _: summarise(store.overview(RunFilter())), None),
        "dashboard of a tier": (
            lambda store, index: summarise(store.overview(RunFilter(tier=["opus", "haiku"][index % 2]))), None
        ),
    }  # fmt: skip
