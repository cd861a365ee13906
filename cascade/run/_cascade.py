"""`Cascade`: load a graph file, run requests through it, keep the traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from cascade._fork import forget_after_fork
from cascade.errors import CascadeError, RequestError, TraceError
from cascade.extras import require
from cascade.langchain._inputs import plain_input, plain_options
from cascade.observers import Observer, Observers
from cascade.records import Event, Request, Result, TextPiece, final_result, new_run_id
from cascade.requests import RequestInput, RequestOptions, build_each, build_request, check_request
from cascade.run._baselines import Baselines
from cascade.run._loop import BackgroundLoop, await_uncancelled
from cascade.run._runs import Run, check_version, in_own_context, stopped_run
from cascade.run._stores import Stores

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable, RunnableConfig
    from langgraph.runtime import RunControl
    from langgraph.types import Command, Durability

    from cascade.config.load import LoadedGraph
    from cascade.graph.compile import Compiled, State
    from cascade.graph.stage import Plan
    from cascade.langchain import ChatCascade, ChatSettings
    from cascade.models.base import Model
    from cascade.policy.costs import PricedCall
    from cascade.spec.schema import Graph

T = TypeVar("T")


class Cascade:
    """A graph of stages that answers requests, small models first.

    Every run is stored in the trace store before its result is returned. An instance may be used from several
    threads and event loops.
    """

    def __init__(
        self, loaded: LoadedGraph, stores: Stores | None = None, observers: Iterable[Observer] = ()
    ) -> None:
        from cascade.graph.compile import compile_plan
        from cascade.graph.stage import Plan
        from cascade.observers.telemetry import Telemetry
        from cascade.run._nested import build_models

        self._loaded, observers = loaded, tuple(observers)
        if loaded.policy is not None:
            require("numpy", f"{loaded.path}: policy {self.config.policy!r}", "tune")
        self._stores = stores or Stores()
        models = build_models(loaded, lambda inner: Cascade(inner, stores, observers))
        self._plan: Plan = Plan(
            self.config, models, loaded.calibrations, loaded.policy, loaded.tightened, self._stores.book
        )
        self._compiled: Compiled = compile_plan(self._plan, self._stores.checkpoints)
        self._store = self._stores.trace
        self._baselines = Baselines(self._plan, self._store)
        self.after_fork()
        forget_after_fork(self)
        self._closed = False
        self._observers = Observers([Telemetry(self.config), *observers])
        self._loop = BackgroundLoop()  # which synchronous callers share

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        self._at_work: dict[str, RunControl] = {}

    @classmethod
    def load(
        cls,
        graph: str | Path | LoadedGraph,
        *,
        trace_db: str | None = None,
        record: bool = True,
        observers: Iterable[Observer] = (),
        granted: Callable[[str], float | None] | None = None,
    ) -> Self:
        """Load and check a graph file.

        Args:
            graph: a YAML graph file, or what `cascade.config.load_graph` has made of one.
            trace_db: SQLAlchemy URL or file of the trace store; default: CASCADE_TRACE_DB, else a file in the
                user's data folder.
            record: False stores no traces at all.
            observers: are told what happens to each run; see `cascade.Observer`.
            granted: returns what an account may spend in a UTC day, in USD, besides the graph's own budgets.

        Raises:
            ConfigError: the file, or something it refers to, is wrong (all problems are reported at once), or
                its models or its policy need an extra that is not installed.
            TraceError: the trace store cannot be opened.
        """
        from cascade.config import LoadedGraph, load_graph

        loaded = graph if isinstance(graph, LoadedGraph) else load_graph(graph)
        stores = Stores.open(loaded, trace_db, granted) if record else Stores.none(loaded)
        return cls(loaded, stores, observers)

    @property
    def loaded(self) -> LoadedGraph:
        """The loaded graph: its file, calibrations and policy, with the thresholds that hold after drift."""
        return self._loaded

    @property
    def config(self) -> Graph:
        """What the graph file says, with the thresholds that hold after drift."""
        return self._loaded.graph

    @property
    def name(self) -> str:
        """The graph's name."""
        return self.config.name

    @property
    def version(self) -> str:
        """The graph's name with the digest of its file: `name@digest`."""
        return self._loaded.version

    @property
    def models(self) -> Mapping[str, Model]:
        """The models by name."""
        return self._plan.models

    @property
    def trace_db(self) -> str | None:
        """Where the traces are stored, without credentials; None if none are stored."""
        return None if self._store is None else self._store.location

    @property
    def baseline_calls(self) -> tuple[PricedCall, ...]:
        """The recorded calls of the baseline model that savings are estimated from, the oldest first."""
        return self._baselines.calls

    @property
    def graph(self) -> Compiled:
        """The compiled LangGraph graph: a LangChain Runnable over `{"request": {"text": …}}` or a `Request`.

        Runs made directly through it are not stored.
        """
        return self._compiled

    async def ainvoke(
        self,
        input: RequestInput,  # noqa: A002 - LangChain's name
        **options: Unpack[RequestOptions],
    ) -> Result:
        """Answer a text, or the last message of a conversation.

        Args:
            input: the text, or the messages: `cascade.Message`, mappings with its fields, LangChain's
                messages or prompts, or messages in OpenAI's shape; at most 1 MB of UTF-8.
            **options: tools, tool_choice, output_schema, local_only, account, metadata: see
                `cascade.requests.RequestOptions`. Tools may be LangChain's, or in OpenAI's shape, too.

        Raises:
            RequestError: the request is invalid; see `cascade.requests.check_request`.
            TraceError: the run could not be stored.
        """
        return await final_result(self.astream(input, **options))

    def astream(
        self,
        input: RequestInput,  # noqa: A002 - LangChain's name
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[Event]:
        """Answer as `ainvoke` does; yield each `Step` once it is decided, and the `Result` last.

        A stage that checks confidence never streams its draft: an accepted text comes with the result. A
        stage without a check streams its answer live as `TextPiece` events, unless the request asks for JSON
        or offers tools, because such an answer may turn out to be invalid. Closing the generator (`aclose`)
        ends the run.
        """
        return self._stream(build_request(plain_input(input), plain_options(options)))

    async def answer(self, request: Request) -> Result:
        """Answer a ready request; see `ainvoke`."""
        return await final_result(self.astream_request(request))

    def astream_request(self, request: Request) -> AsyncGenerator[Event]:
        """Answer a ready request step by step; see `astream`."""
        return self._stream(check_request(request))

    async def abatch(
        self, inputs: Iterable[RequestInput], *, concurrency: int = 8, **options: Unpack[RequestOptions]
    ) -> list[Result]:
        """Answer many inputs, at most `concurrency` at a time; results come in the order of the inputs.

        Raises:
            RequestError: an input is invalid; then none is run.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; expected at least 1")
        todo = build_each(map(plain_input, inputs), plain_options(options))
        gate = asyncio.Semaphore(concurrency)

        async def answer(request: Request) -> Result:
            async with gate:
                return await final_result(self._stream(request))

        return await asyncio.gather(*map(answer, todo))

    async def aresume(self, run: str, answer: str | None = None) -> Result:
        """Finish a waiting run, which may have started in another process.

        Args:
            run: its id.
            answer: the person's answer; None for a run that `drain` stopped.

        Raises:
            RequestError: no such run is waiting, it waits for something else, or another version of the graph
                started it.
        """
        from langgraph.types import Command

        self._check_open()
        state = await self._compiled.aget_state(self._thread(run)) if self._compiled.checkpointer else None
        if state is not None and state.interrupts:
            if answer is None:
                asked = state.interrupts[0].value["question"]
                raise RequestError(f"run {run!r} waits for a person; give the answer to {asked!r:.400}")
            known: Mapping[str, Any] = state.metadata or {}
            check_version(run, known.get("graph", self.version), self.version)
            waited = Run.of_state(run, state.values, known.get("started"))
            return await final_result(self._answer(waited, Command(resume=answer)))
        stopped = None if answer is not None else await stopped_run(self._store, run, self.version)
        if stopped is None:
            raise RequestError(f"run {run!r} is not waiting for {'an answer' if answer else 'a next stage'}")
        return await final_result(self._answer(stopped, stopped.state()))

    def invoke(
        self,
        input: RequestInput,  # noqa: A002 - LangChain's name
        **options: Unpack[RequestOptions],
    ) -> Result:
        """Answer as `ainvoke` does, from synchronous code; also works where an event loop is running."""
        return self._loop.run(self.ainvoke(input, **options))

    def stream(
        self,
        input: RequestInput,  # noqa: A002 - LangChain's name
        **options: Unpack[RequestOptions],
    ) -> Iterator[Event]:
        """Answer step by step, from synchronous code; see `astream`."""
        return self.iterate(self.astream(input, **options))

    def batch(
        self, inputs: Iterable[RequestInput], *, concurrency: int = 8, **options: Unpack[RequestOptions]
    ) -> list[Result]:
        """Answer many, from synchronous code; see `abatch`."""
        return self._loop.run(self.abatch(inputs, concurrency=concurrency, **options))

    def resume(self, run: str, answer: str | None = None) -> Result:
        """Finish a waiting run, from synchronous code; see `aresume`."""
        return self._loop.run(self.aresume(run, answer))

    def question(self, run: str) -> str | None:
        """Return what the waiting run `run` asks a person, also of a graph that stores no texts.

        Returns None if no run of that id waits for a person.
        """
        return self._loop.run(self._question(run))

    async def _question(self, run: str) -> str | None:
        self._check_open()
        state = await self._compiled.aget_state(self._thread(run)) if self._compiled.checkpointer else None
        return str(state.interrupts[0].value["question"]) if state is not None and state.interrupts else None

    def run_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that uses this cascade, from synchronous code."""
        return self._loop.run(coroutine)

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate from synchronous code over an asynchronous iterator that uses this cascade."""
        return self._loop.iterate(items)

    def as_chat_model(self, **settings: Unpack[ChatSettings]) -> ChatCascade:
        """Return this cascade as a LangChain chat model.

        Settings are `on_abstain`, `local_only`, `account`, `stop`: see
        `cascade.langchain.ChatCascade`. The model does not own the cascade: close the cascade, not the
        model.
        """
        from cascade.langchain import ChatCascade

        return ChatCascade(cascade=self, **settings)

    def as_node(self, **settings: Unpack[ChatSettings]) -> Runnable[Any, Any]:
        """Return a node for another LangGraph graph, whose state has `messages`; its runs are kept.

        `Cascade.graph` can be a subgraph, too: its state is `{"request", "trace"}`, and nothing is kept.
        """
        from cascade.langchain import node_of

        return node_of(self.as_chat_model(**settings))

    def drain(self) -> None:
        """Stop all active runs before their next stage, for a process that is about to end; thread-safe.

        They end with status `waiting` and their steps are stored: `aresume` continues them. A run in its last
        stage finishes as usual, and so do all runs of a graph that stores no texts.
        """
        if self._store is not None and self.config.trace.store_text:
            for control in list(self._at_work.values()):
                control.request_drain()

    async def release(self) -> None:
        """Release the models; a later request loads them again."""
        await asyncio.gather(*(model.aclose() for model in self._plan.models.values()))

    async def aclose(self) -> None:
        """Release models and the trace store; nothing can be asked afterwards. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            await self.release()
            self._stores.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
        self._loop.close()

    def close(self) -> None:
        """Release models, the trace store and the background thread, from synchronous code; see `aclose`."""
        if not self._closed:
            self._loop.run(self.aclose())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        """Raise CascadeError once the cascade is closed."""
        if self._closed:
            raise CascadeError(
                f"cascade {self.name!r} is closed; load it again, or ask it within its `with` block"
            )

    def _stream(self, request: Request) -> AsyncGenerator[Event]:
        self._check_open()
        run = Run(new_run_id(), request)
        return self._answer(run, run.state())

    async def _answer(self, run: Run, start: State | Command[Any]) -> AsyncGenerator[Event]:
        """Run the compiled graph from `start`, store the result, and yield it last."""
        from langgraph.runtime import RunControl

        from cascade.graph.stage import RunContext

        config = self._thread(run.id)
        config["metadata"] = config["metadata"] | {"started": run.started.isoformat()}
        config["configurable"]["context"] = RunContext(
            run=run.id,
            began=run.began,
            entered=lambda stage: self._observers.on_stage_start(run.id, stage),
            cancelled_steps=run.cancelled_steps,
            request=run.request,
            steps=run.trace,
            # A run that waits for a person goes on from LangGraph's state, which must hold its shadows.
            shadows=None if self._compiled.checkpointer else run.shadows,
        )
        # LangGraph saves a run that may wait where it stops, not at each step.
        durability: Durability | None = "exit" if self._compiled.checkpointer else None
        control = self._at_work[run.id] = RunControl()
        stream: Any = self._compiled.astream(
            start, config, stream_mode=["updates", "custom"], durability=durability, control=control
        )
        self._observers.on_run_start(run.id, self.version, run.request)
        result: Result | None = None
        try:
            async with aclosing(self._events(run, stream)) as events:
                async for event in events:
                    yield event
            if run.shadows:
                await run.end_shadows()
            result = run.finish(self._plan, self.version, self._baselines)
            await await_uncancelled(asyncio.create_task(self._end(result, run.waiting)))
        except (Exception, asyncio.CancelledError, GeneratorExit):
            if result is None:
                if run.shadows:
                    with suppress(asyncio.CancelledError):  # raised again below
                        await await_uncancelled(asyncio.create_task(run.end_shadows(cancel=True)))
                with suppress(TraceError):  # the caller is no longer listening, or gets the error
                    result = run.finish(self._plan, self.version, self._baselines, cancelled=True)
                    await await_uncancelled(asyncio.create_task(self._end(result)))
            raise
        finally:
            self._at_work.pop(run.id, None)
            if result is None:
                self._observers.on_run_error(run.id)
        yield result

    def _thread(self, run: str) -> RunnableConfig:
        """Return LangGraph's config of a run; the metadata tells another process how to resume it."""
        return {
            "recursion_limit": len(self.config.stages) + 1,
            "configurable": {"thread_id": run},
            "metadata": {"graph": self.version, "graph_file": str(self._loaded.path.absolute())},
        }

    async def _end(self, result: Result, waiting: bool = False) -> None:
        try:
            if self._store is not None:
                await asyncio.shield(asyncio.wrap_future(self._store.submit(result)))
            if self._stores.checkpoints is not None and not waiting:
                await self._stores.checkpoints.adelete_thread(result.run)
        except BaseException:
            self._observers.on_run_error(result.run)
            raise
        self._observers.on_run_end(result)

    async def _events(self, run: Run, stream: AsyncGenerator[Any]) -> AsyncGenerator[Event]:
        """Turn LangGraph's stream of `run` into the caller's events."""
        from langgraph.errors import GraphDrained

        seen = len(run.trace)
        try:
            async with aclosing(in_own_context(stream)) as items:
                async for mode, data in items:
                    if mode == "custom":
                        yield TextPiece(data["text"])
                        continue
                    if "__interrupt__" in data:
                        run.waiting, run.question = True, data["__interrupt__"][0].value
                        continue
                    ended = seen + sum(len(update["trace"]) for update in data.values())
                    for step in run.trace[seen:ended]:
                        self._observers.on_stage_end(run.id, step)
                        yield step
                    seen = ended
        except GraphDrained:
            run.stopped = True
