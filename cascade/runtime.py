"""`Cascade`: load a graph file, run requests through it, keep the traces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from cascade.errors import CascadeError, RequestError
from cascade.loop import BackgroundLoop
from cascade.policy.baseline import baseline_model, price_baseline
from cascade.policy.budget import spent
from cascade.policy.outcome import conclude
from cascade.records import Baseline, Request, Result, Step, check_text, new_run_id

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import Command

    from cascade.config.load import LoadedGraph
    from cascade.graph.compile import Compiled, State
    from cascade.graph.stage import Plan
    from cascade.trace.store import TraceStore

T = TypeVar("T")


class TextPiece(NamedTuple):
    """A piece of an answer that streams live, because its stage accepts without a check."""

    text: str


Event = Step | TextPiece | Result


@dataclass
class _Run:
    """A run at work."""

    id: str
    request: Request
    trace: list[Step] = field(default_factory=list)
    waiting: bool = False
    began: float = field(default_factory=time.perf_counter)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))


class Cascade:
    """A graph of stages that answers requests, small models first.

    Every run is kept in the trace store before its result is returned. One instance may be used from many
    threads and event loops.
    """

    def __init__(self, loaded: LoadedGraph, store: TraceStore | None) -> None:
        from cascade.graph.compile import compile_plan
        from cascade.graph.stage import Plan
        from cascade.models import build_model

        self.config = loaded.graph
        models = {name: build_model(name, model, loaded.base) for name, model in self.config.models.items()}
        self._plan: Plan = Plan(self.config, models, loaded.calibrations)
        self._compiled: Compiled = compile_plan(self._plan)
        self._version = f"{self.config.name}@{loaded.digest}"
        self._store = store
        self._loop = BackgroundLoop()

    @classmethod
    def load(cls, path: str | Path, *, trace_db: str | None = None, record: bool = True) -> Self:
        """Load and check the graph file at `path`.

        Args:
            path: a YAML graph file.
            trace_db: SQLAlchemy URL or file of the trace store; default: CASCADE_TRACE_DB, else a file in the
                user's data folder.
            record: False keeps no traces at all.

        Raises:
            ConfigError: the file, or something it refers to, is wrong; all problems at once.
            TraceError: the trace store cannot be opened.
        """
        from cascade.config.load import load_graph

        loaded = load_graph(path)
        if not record:
            return cls(loaded, None)
        from cascade.trace.store import TraceStore, default_url

        url = default_url() if trace_db is None else trace_db
        return cls(loaded, TraceStore(url, store_text=loaded.graph.trace.store_text))

    @property
    def name(self) -> str:
        """The graph's name."""
        return self.config.name

    @property
    def trace_db(self) -> str | None:
        """Where the traces are, without credentials; None if none are kept."""
        return None if self._store is None else self._store.location

    @property
    def graph(self) -> Compiled:
        """The compiled LangGraph graph: a LangChain Runnable over `{"request": {"text": …}}`.

        Runs made through it directly are not kept in the trace store.
        """
        return self._compiled

    async def ainvoke(
        self, text: str, *, local_only: bool = False, metadata: Mapping[str, Any] | None = None
    ) -> Result:
        """Answer `text`.

        Args:
            text: the request, at most 1 MB of UTF-8.
            local_only: forbid every model that is not local.
            metadata: kept with the trace, never shown to a model.

        Raises:
            RequestError: `text` is empty, too long or not text.
            TraceError: the run could not be kept.
        """
        return await _last(self.astream(text, local_only=local_only, metadata=metadata))

    async def astream(
        self, text: str, *, local_only: bool = False, metadata: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Event]:
        """Answer `text`, yielding each `Step` when it is decided, and the `Result` last.

        Drafts of stages that check confidence never stream: their text comes with the result. A stage without
        a check streams its answer live as `TextPiece` events.
        """
        request = Request(text=check_text(text), local_only=local_only, metadata=dict(metadata or {}))
        async for event in self._answer(
            _Run(new_run_id(), request), {"request": request.model_dump(mode="json")}
        ):
            yield event

    async def abatch(
        self, texts: Iterable[str], *, concurrency: int = 8, local_only: bool = False
    ) -> list[Result]:
        """Answer `texts`, at most `concurrency` at a time; results keep the order of the texts.

        Raises:
            RequestError: a text cannot be asked; nothing is run then.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; expected at least 1")
        todo = [_checked(index, text) for index, text in enumerate(texts)]
        gate = asyncio.Semaphore(concurrency)

        async def one(text: str) -> Result:
            async with gate:
                return await self.ainvoke(text, local_only=local_only)

        return await asyncio.gather(*map(one, todo))

    async def aresume(self, run: str, answer: str) -> Result:
        """Give a person's `answer` to the waiting run `run`, and finish it.

        Raises:
            RequestError: no such run is waiting in this process.
        """
        from langgraph.types import Command

        state = await self._compiled.aget_state(_thread(run)) if self._compiled.checkpointer else None
        if state is None or not state.interrupts:
            raise RequestError(f"run {run!r} is not waiting for an answer in this process")
        trace = [Step.model_validate(step) for step in state.values.get("trace", [])]
        waited = _Run(run, Request.model_validate(state.values["request"]), trace)
        return await _last(self._answer(waited, Command(resume=answer)))

    def invoke(
        self, text: str, *, local_only: bool = False, metadata: Mapping[str, Any] | None = None
    ) -> Result:
        """Answer `text`, from synchronous code; also works where an event loop is already running."""
        return self._loop.run(self.ainvoke(text, local_only=local_only, metadata=metadata))

    def batch(self, texts: Iterable[str], *, concurrency: int = 8, local_only: bool = False) -> list[Result]:
        """Answer `texts`, from synchronous code; see `abatch`."""
        return self._loop.run(self.abatch(texts, concurrency=concurrency, local_only=local_only))

    def resume(self, run: str, answer: str) -> Result:
        """Give a person's `answer` to a waiting run, from synchronous code; see `aresume`."""
        return self._loop.run(self.aresume(run, answer))

    def run_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that uses this cascade, from synchronous code."""
        return self._loop.run(coroutine)

    async def aclose(self) -> None:
        """Release models and the trace store."""
        await asyncio.gather(*(model.aclose() for model in self._plan.models.values()))
        if self._store is not None:
            self._store.close()

    def close(self) -> None:
        """Release models, the trace store and the background thread, from synchronous code."""
        self._loop.run(self.aclose())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
        self._loop.close()

    async def _answer(self, run: _Run, start: State | Command[Any]) -> AsyncIterator[Event]:
        """Run the compiled graph from `start`, keep the result, and yield it last."""
        config: RunnableConfig = {"recursion_limit": len(self.config.stages) + 1, **_thread(run.id)}
        stream = self._compiled.astream(start, config, stream_mode=["updates", "custom"])
        async for mode, data in _untraced(stream):
            if mode == "custom":
                yield TextPiece(data["text"])
            elif "__interrupt__" in data:
                run.waiting = True
            else:
                for step in (step for update in data.values() for step in update["trace"]):
                    run.trace.append(Step.model_validate(step))
                    yield run.trace[-1]
        result = self._finish(run)
        if self._store is not None:
            await asyncio.wrap_future(self._store.submit(result))
        yield result

    def _finish(self, run: _Run) -> Result:
        outcome = {"status": "waiting"} if run.waiting else conclude(self.config, run.trace)
        return Result(
            run=run.id,
            graph=self._version,
            cost_usd=spent(run.trace).cost_usd,
            baseline=self._baseline(run, outcome),
            seconds=time.perf_counter() - run.began,
            started=run.started.isoformat(timespec="milliseconds"),
            request=run.request,
            trace=tuple(run.trace),
            **outcome,
        )

    def _baseline(self, run: _Run, outcome: Mapping[str, Any]) -> Baseline | None:
        models = self._plan.models
        name = baseline_model(self.config, {name: model.price for name, model in models.items()})
        price = models[name].price if name is not None else None
        if name is None or price is None:
            return None
        prompt_bytes, _ = models[name].worst_case(run.request.text)  # a token has at least one byte
        answer = outcome.get("text") or outcome.get("draft")
        return price_baseline(name, price, run.trace, prompt_bytes, answer)


async def _last(events: AsyncIterator[Event]) -> Result:
    """Return the result that ends a stream of events."""
    async for event in events:
        if isinstance(event, Result):
            return event
    raise CascadeError("a run ended without a result; please report this")


def _thread(run: str) -> RunnableConfig:
    return {"configurable": {"thread_id": run}}


def _checked(index: int, text: str) -> str:
    try:
        return check_text(text)
    except RequestError as error:
        raise RequestError(f"texts[{index}]: {error}") from None


async def _untraced(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield from `stream`, keeping LangSmith's environment variables alone from sending it to a server."""
    from langsmith import tracing_context

    while True:
        with tracing_context(enabled=False):
            try:
                item = await anext(stream)
            except StopAsyncIteration:
                return
        yield item
