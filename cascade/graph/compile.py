"""From a plan to a compiled LangGraph: one node per stage, state = request + trace as plain JSON."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12: no JSON schema

from cascade.config.schema import Stage
from cascade.graph.stage import Plan, run_stages
from cascade.records import Request, Step
from cascade.requests import check_request


class State(TypedDict, total=False):
    """The state of a run: `request` is a `Request`, `trace` a list of `Step`, both as plain JSON."""

    request: dict[str, Any]
    trace: Annotated[list[dict[str, Any]], operator.add]


Compiled = CompiledStateGraph[State, None, State, State]


def compile_plan(plan: Plan, saver: BaseCheckpointSaver[Any] | None = None) -> Compiled:
    """Compile `plan` to a LangGraph graph, a Runnable over `{"request": {"text": …}}`.

    A graph that may wait for a person gets a checkpointer (`saver`, else one in memory), and then needs a
    `thread_id`.
    """
    graph = plan.graph
    builder = StateGraph(State)
    builder.add_edge(START, graph.stages[0].name)
    for stage in graph.stages:
        builder.add_node(stage.name, _Node(plan, stage))
        builder.add_conditional_edges(stage.name, _next, _targets(plan, stage))
    waits = any(model.kind == "human" for model in graph.models.values())
    return builder.compile(checkpointer=(saver or InMemorySaver()) if waits else None, name=graph.name)


class _Node(Runnable[State, State]):
    """A stage as a node; a Runnable, since LangGraph has no synchronous calls of an async function."""

    def __init__(self, plan: Plan, stage: Stage) -> None:
        self._plan, self._stage = plan, stage

    async def ainvoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> State:  # noqa: A002
        """Run the stage on a state, and return what is new."""
        state, known = input, (config or {}).get("configurable", {})
        request = Request.model_validate(state["request"])
        update: State = {}
        if not state.get("trace") and (checked := check_request(request)) != request:
            request = checked
            update["request"] = request.model_dump(mode="json")
        trace = [Step.model_validate(step) for step in state.get("trace", [])]
        write = get_stream_writer()
        write({"stage": self._stage.name})
        name, began, left = (known.get(key) for key in ("thread_id", "began", "left"))
        steps = await run_stages(
            self._plan, self._stage, request, trace, lambda piece: write({"text": piece}), name, began, left
        )
        return {**update, "trace": [step.model_dump(mode="json") for step in steps]}

    def invoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> State:  # noqa: A002
        """As `ainvoke`: LangGraph calls it in a worker thread that has no event loop of its own."""
        return asyncio.run(self.ainvoke(input, config))


def _next(state: State) -> str:
    target = state["trace"][-1]["decision"]["to"]
    return END if target is None else str(target)


def _targets(plan: Plan, stage: Stage) -> list[str]:
    branches = list(stage.gate.to.values()) if stage.gate and stage.gate.to else []
    following = plan.graph.next_stage(stage.name)
    beyond = _targets(plan, plan.graph.stage(following)) if following and stage.hedge is not None else []
    return list(dict.fromkeys([*branches, *([following] if following else []), *beyond, END]))
