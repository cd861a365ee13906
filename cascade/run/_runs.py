"""An active run: its state, the result it ends with, and the context it runs in."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cascade.errors import RequestError, UnknownRunError
from cascade.policy.budget import spent
from cascade.policy.result import summarize, waits
from cascade.records import Request, Result, Step
from cascade.run._baselines import Baselines
from cascade.run._loop import await_uncancelled

if TYPE_CHECKING:
    from cascade.graph.compile import State
    from cascade.graph.shadow import Shadow
    from cascade.graph.stage import Plan
    from cascade.trace import TraceStore


T = TypeVar("T")


@dataclass
class Run:
    """An active run; `began` is its start on the clock of `time.perf_counter()`, not counting any wait."""

    id: str
    request: Request
    trace: list[Step] = field(default_factory=list)
    waiting: bool = False  # for a person
    question: Mapping[str, Any] | None = (
        None  # what the person is asked: see `cascade.models.human.Human.ask`
    )
    stopped: bool = False  # between two stages, to continue in another process
    cancelled_steps: list[Step] = field(default_factory=list)  # stages that were interrupted
    shadows: list[Shadow] = field(default_factory=list)  # those at work when their stage had decided
    began: float = field(default_factory=time.perf_counter)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def resumed(cls, run: str, request: Request, trace: list[Step], started: str | None) -> Self:
        """Return a run that continues where it stopped; the wait does not count.

        Args:
            run: its id.
            request: what was asked.
            trace: its steps so far.
            started: when it began, in ISO 8601; None if that was not stored.
        """
        worked = max((step.started + step.seconds for step in trace), default=0.0)
        first = datetime.fromisoformat(started) if started else datetime.now(UTC)
        return cls(run, request, trace, began=time.perf_counter() - worked, started=first)

    @classmethod
    def of_state(cls, run: str, state: Mapping[str, Any], started: str | None) -> Self:
        """Return the run that a graph's state belongs to."""
        trace = [Step.model_validate(step) for step in state.get("trace", [])]
        return cls.resumed(run, Request.model_validate(state["request"]), trace, started)

    def state(self) -> State:
        """Return the run as a graph's state."""
        trace = [step.model_dump(mode="json") for step in self.trace]
        return {"request": self.request.model_dump(mode="json"), "trace": trace}

    async def end_shadows(self, *, cancel: bool = False) -> None:
        """Wait for the shadows that are still at work, or cancel them, and note them in their steps."""
        for shadow in self.shadows:
            if cancel:
                shadow.cancel()
        for shadow in self.shadows:
            await shadow.wait()
            self.trace[:] = [
                shadow.noted(step) if step.stage == shadow.stage else step for step in self.trace
            ]

    def finish(self, plan: Plan, version: str, baselines: Baselines, *, cancelled: bool = False) -> Result:
        """Return the result of the steps so far; `version` is that of the graph of `plan`."""
        if cancelled:
            self.trace += self.cancelled_steps
        outcome = (
            waits(plan.graph, self.trace, self.question)
            if self.waiting or self.stopped
            else summarize(plan.graph, self.trace, cancelled=cancelled)
        )
        return Result(
            run=self.id,
            graph=version,
            cost_usd=spent(self.trace).cost_usd,
            baseline=baselines.of_run(self.id, self.request, self.trace, outcome),
            seconds=time.perf_counter() - self.began,
            started=self.started.isoformat(timespec="milliseconds"),
            request=self.request,
            trace=tuple(self.trace),
            **outcome,
        )


async def stopped_run(store: TraceStore | None, run: str, version: str) -> Run | None:
    """Return a run that was stopped between two stages of the graph `version`; None if there is none.

    Raises:
        RequestError: another version of the graph started it.
    """
    if store is None:
        return None
    try:
        kept = await asyncio.to_thread(store.get, run)
    except UnknownRunError:
        return None
    if kept.status != "waiting" or not kept.trace or kept.trace[-1].decision.to is None:
        return None
    check_version(kept.run, kept.graph, version)
    return Run.resumed(kept.run, kept.request, list(kept.trace), kept.started)


def check_version(run: str, begun: str, version: str) -> None:
    """Check that a waiting run continues in the version of the graph that started it.

    Raises:
        RequestError: another version of the graph started it.
    """
    if begun != version:
        raise RequestError(f"run {run!r} was begun by {begun}; this is {version}; bring that file back")


async def in_own_context(stream: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yield from `stream`, which runs in tasks and a context of its own.

    A caller that stops early or is cancelled waits until the stream has ended. The stream is therefore
    cancelled once, and can record the calls in progress (see `await_uncancelled`). It is also separate from a
    LangGraph or LangChain run that the caller may be part of: otherwise a graph started within a node would
    become a subgraph and share the outer graph's checkpoints, streams and interrupts.
    """
    from langchain_core.runnables.config import var_child_runnable_config

    apart = contextvars.copy_context()
    if var_child_runnable_config.get() is not None:
        apart.run(var_child_runnable_config.set, None)
    try:
        while True:
            try:
                item = await await_uncancelled(asyncio.create_task(_next(stream), context=apart), cancel=True)
            except StopAsyncIteration:
                return
            yield item
    finally:
        await await_uncancelled(asyncio.create_task(_close(stream), context=apart))


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)


async def _close(stream: AsyncGenerator[Any]) -> None:
    await stream.aclose()
