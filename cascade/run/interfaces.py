"""Ways into a cascade for code that is synchronous, or that speaks LangChain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from cascade.records import Event, Result
from cascade.requests import Asked, Options
from cascade.run.loop import BackgroundLoop

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from cascade.langchain.chat import ChatCascade, ChatSettings

T = TypeVar("T")


class Interfaces(ABC):
    """What a `Cascade` offers on top of its asynchronous methods; all callers here share one event loop."""

    def __init__(self) -> None:
        self._loop = BackgroundLoop()

    @abstractmethod
    async def ainvoke(self, asked: Asked, **options: Unpack[Options]) -> Result:
        """Answer a text, or the last message of a conversation."""

    @abstractmethod
    def astream(self, asked: Asked, **options: Unpack[Options]) -> AsyncIterator[Event]:
        """Answer step by step."""

    @abstractmethod
    async def abatch(
        self, asked: Iterable[Asked], *, concurrency: int = 8, **options: Unpack[Options]
    ) -> list[Result]:
        """Answer many."""

    @abstractmethod
    async def aresume(self, run: str, answer: str | None = None) -> Result:
        """Finish a waiting run."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release everything."""

    def invoke(self, asked: Asked, **options: Unpack[Options]) -> Result:
        """Answer as `ainvoke` does, from synchronous code; also works where an event loop is running."""
        return self._loop.run(self.ainvoke(asked, **options))

    def stream(self, asked: Asked, **options: Unpack[Options]) -> Iterator[Event]:
        """Answer step by step, from synchronous code; see `astream`."""
        return self.iterate(self.astream(asked, **options))

    def batch(
        self, asked: Iterable[Asked], *, concurrency: int = 8, **options: Unpack[Options]
    ) -> list[Result]:
        """Answer many, from synchronous code; see `abatch`."""
        return self._loop.run(self.abatch(asked, concurrency=concurrency, **options))

    def resume(self, run: str, answer: str | None = None) -> Result:
        """Finish a waiting run, from synchronous code; see `aresume`."""
        return self._loop.run(self.aresume(run, answer))

    def run_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that uses this cascade, from synchronous code."""
        return self._loop.run(coroutine)

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate, from synchronous code, over what a coroutine of this cascade yields."""
        return self._loop.iterate(items)

    def as_chat_model(self, **settings: Unpack[ChatSettings]) -> ChatCascade:
        """Return this cascade as a LangChain chat model.

        Settings are `on_abstain`, `local_only`, `account`, `stop`: see
        `cascade.langchain.chat.ChatCascade`. The model does not own the cascade: close the cascade, not the
        model.
        """
        from cascade.langchain.chat import ChatCascade

        return ChatCascade(cascade=self, **settings)

    def as_node(self, **settings: Unpack[ChatSettings]) -> Runnable[Any, Any]:
        """Return a node for another LangGraph graph, whose state has `messages`; its runs are kept.

        `Cascade.graph` can be a subgraph, too: its state is `{"request", "trace"}`, and nothing is kept.
        """
        from cascade.langchain.chat import node_of

        return node_of(self.as_chat_model(**settings))

    def close(self) -> None:
        """Release models, the trace store and the background thread, from synchronous code."""
        self._loop.run(self.aclose())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
