"""One contestant in a process of its own: `worker.py CONTESTANT URL`, in that contestant's environment.

Prints its versions; then reads lines `REQUESTS CONCURRENCY`, sends that many requests and prints the seconds
that each took and all together, as JSON. Imports nothing of cascade but for the contestants of that name.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

Ask = Callable[[], Awaitable[str]]
TEXT = "Why was I charged twice?"
ASKED: Any = {
    "model": "m",
    "messages": [{"role": "user", "content": TEXT}],
    "logprobs": True,
    "top_logprobs": 5,
}
ASKED |= {"max_tokens": 64, "temperature": 0.0}


async def bare(url: str, stack: AsyncExitStack) -> tuple[Ask, list[str]]:
    """The openai SDK alone."""
    import openai

    client = await stack.enter_async_context(openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0))

    async def ask() -> str:
        return (await client.chat.completions.create(**ASKED)).choices[0].message.content or ""

    return ask, ["openai"]


async def langgraph(url: str, stack: AsyncExitStack) -> tuple[Ask, list[str]]:
    """LangGraph with one node that asks the openai SDK."""
    from langgraph.graph import END, START, StateGraph

    inner, _ = await bare(url, stack)

    async def node(_: dict[str, str]) -> dict[str, str]:
        return {"answer": await inner()}

    builder: Any = StateGraph(dict)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    graph = builder.compile()

    async def ask() -> str:
        return str((await graph.ainvoke({"text": TEXT}))["answer"])

    return ask, ["langgraph", "openai"]


def cascade(record: bool, budget: bool) -> Callable[[str, AsyncExitStack], Awaitable[tuple[Ask, list[str]]]]:
    """Cascade with one stage that checks its answer's log-probabilities."""

    async def make(url: str, stack: AsyncExitStack) -> tuple[Ask, list[str]]:
        from cascade import Cascade

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "graph.yaml").write_text(
            "name: overhead\n"
            + ("budgets: {day_usd: 1000}\n" if budget else "")
            + "models:\n"
            + f"  m: {{kind: openai, model: m, url: '{url}', key_env: null, max_retries: 0, max_tokens: 64,\n"
            + "      price: {input: 0.05, output: 0.4}}\n"
            + "stages:\n  - {name: s, ask: [m], confidence: {by: logprob}, accept: 0.5}\n",
            encoding="utf-8",
        )
        trace_db = str(folder / "traces.db") if record else None
        made = Cascade.load(folder / "graph.yaml", record=record, trace_db=trace_db)
        runner = await stack.enter_async_context(made)

        async def ask() -> str:
            return (await runner.ainvoke(TEXT)).text or ""

        return ask, ["cascade-moe"]

    return make


async def litellm(url: str, stack: AsyncExitStack) -> tuple[Ask, list[str]]:
    """LiteLLM's router with one deployment."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices
    import litellm as library  # type: ignore[import-not-found]

    settings = {"model": "openai/m", "api_base": url, "api_key": "none"}
    router = library.Router(model_list=[{"model_name": "m", "litellm_params": settings}], num_retries=0)

    async def ask() -> str:
        return str((await router.acompletion(**ASKED)).choices[0].message.content)

    return ask, ["litellm", "openai"]


async def cascadeflow(url: str, stack: AsyncExitStack) -> tuple[Ask, list[str]]:
    """A cascadeflow agent of two models, whose first answer is good enough."""
    from cascadeflow import CascadeAgent, ModelSettings  # type: ignore[import-not-found]

    os.environ["OPENAI_API_KEY"] = "none"
    models = [
        ModelSettings(name=name, provider="openai", cost=cost) for name, cost in (("m", 1e-4), ("m2", 1e-3))
    ]
    agent = CascadeAgent(models=models)
    for provider in [*agent.providers.values(), *getattr(agent, "model_providers", {}).values()]:
        provider.base_url = url  # its settings know no other server for this provider

    async def ask() -> str:
        return str((await agent.run(TEXT, max_tokens=64, temperature=0.0)).content)

    return ask, ["cascadeflow"]


CONTESTANTS = {
    "openai": bare,
    "langgraph": langgraph,
    "cascade, nothing kept": cascade(record=False, budget=False),
    "cascade": cascade(record=True, budget=False),
    "cascade, day budget": cascade(record=True, budget=True),
    "litellm": litellm,
    "cascadeflow": cascadeflow,
}


async def measure(ask: Ask, requests: int, concurrency: int) -> dict[str, Any]:
    """Send `requests`, at most `concurrency` at a time."""
    seconds: list[float] = []
    todo = iter(range(requests))

    async def work() -> None:
        for _ in todo:
            start = time.perf_counter()
            if await ask() != "fine":
                raise RuntimeError("the answer is not the stub's")
            seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return {"all": time.perf_counter() - start, "each": seconds}


async def main(contestant: str, url: str) -> None:
    """Answer the lines of standard input until it ends."""
    async with AsyncExitStack() as stack:
        ask, packages = await CONTESTANTS[contestant](url, stack)
        print(json.dumps({name: version(name) for name in packages}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            requests, concurrency = map(int, line.split())
            print(json.dumps(await measure(ask, requests, concurrency)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
