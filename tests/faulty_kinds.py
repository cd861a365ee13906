"""Kinds of a model, a confidence and a gate that fail in every way, and a process that runs them.

The kinds do what the texts say that they see: `fault:NAME` commits a fault of that kind. The model counts its
calls at a real server first, as a provider would that is paid.

    python faulty_kinds.py SEED RUNS    # prints what was recorded, charged and counted, as JSON
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx
from loopback import Answer, Loopback, Seen, chat, stream

from cascade import Cascade
from cascade.errors import ModelError
from cascade.models import OnText, Prompt, Reply
from cascade.observers import Observer
from cascade.records import Token
from cascade.spec import ConfidenceSettings, Draft, GateSettings, ModelFacts, ModelSettings, Price
from cascade.trace import BudgetBook, TraceStore


def fault_in(text: object) -> str:
    return text.partition("fault:")[2].partition(";")[0] if isinstance(text, str) else ""


class Knot(dict[str, Any]):
    """A mapping that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self["self"] = self


def reply(text: Any, **parts: Any) -> Reply:
    return Reply(text, **{"tokens_in": 11, "tokens_out": 3, **parts})


ERRORS: dict[str, Callable[[], BaseException]] = {
    "attribute": lambda: AttributeError("'str' object has no attribute 'items'"),
    "recursion": RecursionError,
    "memory": MemoryError,
    "unicode": lambda: ValueError("a lone \ud800"),
    "model": lambda: ModelError("no", billed="much"),  # type: ignore[arg-type]
    "unpaid": lambda: ModelError("no", billed=(-1, 2)),
    "stop": lambda: StopAsyncIteration("x"),
    "timeout": TimeoutError,
    "cancelled": asyncio.CancelledError,
}
REPLIES: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "text": lambda: reply(None),
    "bytes": lambda: reply(b"x"),
    "surrogate": lambda: reply("a\ud800", tokens=(Token(text="a\ud800", logprob=-0.1),)),
    "counts": lambda: reply("a", tokens_in=-5, tokens_out=2),
    "float": lambda: reply("a", tokens_in=1.5),
    "huge": lambda: reply("a", tokens_out=10**30),
    "billed": lambda: reply("a", billed=("x", None)),
    "meta": lambda: reply("a", meta={"x": object(), "y": {1, 2}, 3: math.inf, "z": 10**5000}),
    "knot": lambda: reply("a", meta=Knot()),
    "meta-kind": lambda: reply("a", meta=[1, 2]),
    "labels": lambda: reply("a", labels={"a": "much"}),
    "tokens": lambda: reply("a", tokens=("a", "b")),
    "calls": lambda: reply("a", tool_calls=({"name": "x"},)),
    "nan": lambda: reply("a", tokens=(Token(text="a", logprob=math.nan),)),
}
MEASURED: dict[str, Any] = {
    "words": {"faulty": "high"},
    "list": ["x"],
    "nan": {"faulty": math.nan},
    "inf": {"faulty": math.inf, "\ud800": 1.0},
    "huge": {"faulty": 10**400},
}


class FaultyModel(ModelSettings):
    """A model that commits the fault its text names."""

    kind: Literal["faulty"]
    url: str
    price: Price = Price(input=1.0, output=1.0)

    def build(self, name: str, base: Path, facts: ModelFacts) -> Faulty:
        return Faulty(name, self)

    def token_price(self) -> Price:
        return self.price

    def answer_tokens(self, facts: ModelFacts) -> int:
        return 100

    def lacks(self, *_: Any) -> None:
        return None

    def repeats(self, facts: ModelFacts) -> None:
        return None


class Faulty:
    """The model of `FaultyModel`."""

    def __init__(self, name: str, settings: FaultyModel) -> None:
        self.name, self.tier, self.local, self.closed = name, settings.tier, False, False
        self.price: Price | None = settings.price
        self.timeout, self._url = settings.timeout, settings.url

    def unavailable(self) -> None:
        return None

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        return 100, 100

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        async with httpx.AsyncClient() as client:
            answered = (await client.post(self._url, json={"text": prompt.text})).json()
        text = answered["choices"][0]["message"]["content"]
        if on_text is not None:
            for piece in text:
                on_text(piece)
        fault = fault_in(prompt.text)
        if fault in ERRORS:
            raise ERRORS[fault]()
        answer: Reply = REPLIES[fault]() if fault in REPLIES else reply(text)
        return answer

    async def aclose(self) -> None:
        return None


class FaultyConfidence(ConfidenceSettings):
    """A confidence that commits the fault a draft names."""

    by: Literal["faulty"]

    def measure(self, drafts: Sequence[Draft | None]) -> list[tuple[int, Mapping[str, float]]]:
        fault = next((fault_in(draft.text) for draft in drafts if draft is not None), "")
        if fault in ERRORS and fault != "cancelled":
            raise ERRORS[fault]()
        if fault == "index":
            return [(99, {"faulty": 1.0})]
        found = MEASURED.get(fault, {"faulty": 0.9})
        return [(index, found) for index, draft in enumerate(drafts) if draft is not None]

    def noise_range(self, estimate: Any, nats: float) -> tuple[float, float] | None:
        raise ZeroDivisionError("noise")


class FaultyGate(GateSettings):
    """A gate that asks, then commits the fault its text names."""

    by: Literal["faulty"]
    model: str

    @property
    def models(self) -> Mapping[str, str]:
        return {"model": self.model}

    async def score(
        self, candidates: Sequence[str], text: str, ask: Callable[[str], Awaitable[Draft | None]]
    ) -> Any:
        await ask(self.model)
        fault = text.partition("gate:")[2].partition(";")[0]
        if fault in ERRORS and fault != "cancelled":
            raise ERRORS[fault]()
        odd: dict[str, Any] = {
            "words": {"a": "x"},
            "empty": {},
            "none": None,
            "list": [1],
            "others": {"z": 1},
        }
        return odd.get(fault, dict.fromkeys(candidates, 1.0))


class Raising(Observer):
    """An observer that fails whenever a stage ends."""

    def on_stage_end(self, run: str, step: Any) -> None:
        raise RuntimeError("observer")


SCHEMAS: list[dict[str, Any]] = [
    {"title": "t", "$ref": "#/title"},
    {"type": "object", "properties": {"a": {"$ref": "#/required"}}, "required": ["a"]},
    {"properties": {"a": {"required": True, "type": "string"}}},
    {"enum": [1, "x", None]},
    {"$ref": "#"},
    {"items": {"$id": "http://127.0.0.1:9/x", "$ref": "y"}},
    {"not": {}, "if": True, "then": {"$ref": "#/if"}},
    {"multipleOf": 0.1, "pattern": "^(?!x)y$"},
    {"type": "string"},
]
TEXTS = ['"x"', '{"a": 1}', "1e999", "1" * 5000, "[" * 3000, "\ud83d", "{}", "fault", "x", '{"a": "\ud800"}']


def graph_file(folder: Path, url: str, stages: list[dict[str, Any]], number: int) -> Path:
    remote = {"kind": "openai", "tier": "opus", "model": "gpt", "url": url, "max_tokens": 100,
              "price": {"input": 1.0, "output": 1.0}, "max_retries": 0, "temperature": 0.7}  # fmt: skip
    models = {"a": remote, "b": remote, "f": {"kind": "faulty", "url": f"{url}/chat/completions"}}
    path = folder / f"g{number}.yaml"
    used = {name for stage in stages for name in [*stage.get("ask", []), stage.get("gate", {}).get("model")]}
    graph = {"name": "faults", "budgets": {"day_usd": 1e6}, "stages": stages,
             "models": {name: models[name] for name in sorted(used & set(models))}}  # fmt: skip
    path.write_text(json.dumps(graph))
    return path


CHECK = {"confidence": {"by": "faulty"}, "accept": 0.8}
GRAPHS: list[list[dict[str, Any]]] = [
    [{"name": "one", "ask": ["a"]}],
    [{"name": "one", "ask": ["f"]}],
    [{"name": "one", "ask": ["a"], **CHECK}, {"name": "two", "ask": ["f"], **CHECK}],
    [{"name": "one", "ask": ["a", "f"], "samples": 2, **CHECK}, {"name": "two", "ask": ["b"]}],
    [{"name": "one", "ask": ["f"], "samples": 3, "confidence": {"by": "agreement"}, "accept": 0.9}],
    [{"name": "one", "ask": ["a", "b"], "gate": {"by": "faulty", "model": "f"}, **CHECK}],
    [{"name": "one", "ask": ["f"], "hedge": 0.01, **CHECK}, {"name": "two", "ask": ["a"]}],
]


def play(chance: random.Random) -> Callable[[Seen], Answer]:
    """Answer with an odd text, in the form that was asked for."""

    def answer(seen: Seen) -> Answer:
        text = chance.choice([*TEXTS, *(f"fault:{name};" for name in [*ERRORS, *MEASURED, "index"])])
        if seen.body and seen.json.get("stream"):
            return stream(list(text))
        return chat(text, pause=chance.choice([0.0, 0.0, 0.03]))

    return answer


async def ask_once(cascade: Cascade, chance: random.Random, seed: str) -> None:
    """Ask something odd in one of several ways; whatever is raised, is."""
    said = f"seed:{seed}; fault:{chance.choice([*ERRORS, *REPLIES, 'no'])};"
    said += f" gate:{chance.choice([*ERRORS, 'words', 'empty', 'none', 'list', 'others', 'no'])};"
    options: dict[str, Any] = {}
    if chance.random() < 0.4:
        options["output_schema"] = chance.choice(SCHEMAS)
    if chance.random() < 0.2:
        options["tools"] = [{"name": "x", "parameters": chance.choice(SCHEMAS)}]
    way = chance.choice(["invoke", "invoke", "stream", "leave"])
    with contextlib.suppress(Exception, asyncio.CancelledError):
        if way == "invoke":
            await asyncio.shield(asyncio.create_task(cascade.ainvoke(said, **options)))
            return
        async with contextlib.aclosing(cascade.astream(said, **options)) as events:  # type: ignore[type-var]
            async for event in events:
                json.dumps(str(event)).encode()
                if way == "leave":
                    break


def spent(database: str) -> float:
    """Return what all budgets of all days have paid: midnight may come."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (paid,) = connection.execute("SELECT coalesce(sum(spent), 0) FROM budget_days").fetchone()
    return float(paid) / 1e12


async def run_graph(
    path: Path, database: str, server: Loopback, seeds: Sequence[str]
) -> list[dict[str, Any]]:
    """Ask a graph one request for each seed, and say what each left behind."""
    found: list[dict[str, Any]] = []
    book = BudgetBook(database)
    with TraceStore(database) as store:
        last = next((each.run for each in store.runs(limit=1)), None)
        async with Cascade.load(path, trace_db=database, observers=[Raising()]) as cascade:
            for seed in seeds:
                chance = random.Random(seed)
                server.answers = [play(chance)]
                before = spent(database)
                await ask_once(cascade, chance, seed)
                while any(balance.held for balance in book.balances()):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)  # it is settled without waiting; a hold for good hangs here
                charged = spent(database) - before
                newest = next(iter(store.runs(limit=1)), None)
                new = newest is not None and newest.run != last
                last = newest and newest.run
                trace = store.get(newest.run).trace if newest is not None and new else ()
                paid = [[call.cost_usd, call.error] for step in trace for call in step.calls]
                found.append({"seed": seed, "new": new, "recorded": paid, "charged": charged})
    for each in found:  # by what it asks: a request whose caller has gone may come late
        each["counted"] = sum(f"seed:{each['seed']};".encode() in asked.body for asked in server.requests)
    book.close()
    return found


def main(seed: str, runs: str) -> None:
    """Run as many requests as asked for, each with faults of its own."""
    logging.disable(logging.CRITICAL)  # what observers and receivers raise is logged, every time
    found = []
    with Loopback() as server, tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder) / "traces.db")
        for number, stages in enumerate(GRAPHS):
            path = graph_file(Path(folder), server.url, stages, number)
            seeds = [f"{seed}/{each}" for each in range(number, int(runs), len(GRAPHS))]
            found += asyncio.run(run_graph(path, database, server, seeds))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
