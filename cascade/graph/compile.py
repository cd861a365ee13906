"""From a plan to a compiled LangGraph: one node per stage, state = request + trace as plain JSON."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12: no JSON schema

from cascade.graph.stage import Plan, RunContext, run_stages
from cascade.langchain._tracing import aiterate_untraced, iterate_untraced
from cascade.records import Request, Step
from cascade.requests import check_request
from cascade.spec.schema import Stage


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
        builder.add_node(stage.name, _Node(plan, stage), destinations=_targets(plan, stage))
    checkpointer = (saver or InMemorySaver()) if graph.has_person else None
    compiled = builder.compile(checkpointer=checkpointer, name=graph.name)
    return compiled if graph.trace.langsmith else _UntracedGraph(**vars(compiled))


class _UntracedGraph(CompiledStateGraph[State, None, State, State]):
    """A compiled graph on which LangSmith's environment variables have no effect.

    A tracer that the application passes as a callback, or that an outer graph has, still works.
    """

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Run the graph; see the base class."""
        return iterate_untraced(super().stream(*args, **kwargs))

    def astream(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        """Run the graph; see the base class."""
        return aiterate_untraced(super().astream(*args, **kwargs))


class _Node(Runnable[State, Command[str]]):
    """A stage as a node; a Runnable, since LangGraph has no synchronous calls of an async function.

    It names the next node itself: LangGraph would run a synchronous branching function in a thread.
    """

    def __init__(self, plan: Plan, stage: Stage) -> None:
        self._plan, self._stage = plan, stage

    async def ainvoke(
        self,
        input: State,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **_: Any,
    ) -> Command[str]:
        """Run the stage on a state; return what is new, and where to go."""
        known = (config or {}).get("configurable", {})
        context: RunContext = known.get("context") or RunContext(run=known.get("thread_id"))
        update: State = {}
        request, trace = _request(input, context, update), _trace(input, context)
        if trace and trace[-1].decision.to not in (None, self._stage.name):
            # A run that goes on enters the graph at its first node, too.
            return Command(update={"trace": []}, goto=str(trace[-1].decision.to))
        if context.on_text is None:
            write = get_stream_writer()
            context = context._replace(on_text=lambda piece: write({"text": piece}))
        steps = await run_stages(self._plan, self._stage, request, trace, context)
        if context.steps is not None:
            context.steps.extend(steps)
        update["trace"] = [step.model_dump(mode="json") for step in steps]
        return Command(update=update, goto=steps[-1].decision.to or END)

    def invoke(
        self,
        input: State,  # noqa: A002
        config: RunnableConfig | None = None,
        **_: Any,
    ) -> Command[str]:
        """As `ainvoke`: LangGraph calls it in a worker thread that has no event loop of its own."""
        return asyncio.run(self.ainvoke(input, config))


def _request(state: State, context: RunContext, update: State) -> Request:
    """Return the request; check one that comes from elsewhere, and put what changes into `update`."""
    if context.request is not None:
        return context.request
    request = Request.model_validate(state["request"])
    if not state.get("trace") and (checked := check_request(request)) != request:
        request = checked
        update["request"] = request.model_dump(mode="json")
    return request


def _trace(state: State, context: RunContext) -> list[Step]:
    """Return the steps so far, without reading those again that this run has made itself."""
    stored = state.get("trace", [])
    if context.steps is not None and len(context.steps) == len(stored):
        return list(context.steps)
    return [Step.model_validate(step) for step in stored]


def _targets(plan: Plan, stage: Stage) -> tuple[str, ...]:
    branches = list(stage.gate.to.values()) if stage.gate and stage.gate.to else []
    following = plan.graph.next_stage(stage.name)
    beyond = _targets(plan, plan.graph.stage(following)) if following and stage.hedge is not None else []
    return tuple(dict.fromkeys([*branches, *([following] if following else []), *beyond, END]))
