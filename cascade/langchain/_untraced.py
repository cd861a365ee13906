"""A chat model, and a chain, that ignore LangSmith's environment variables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableConfig

from cascade.langchain._tracing import aiterate_untraced, iterate_untraced, untraced


class UntracedChatModel(BaseChatModel):
    """Disables LangSmith's automatic tracer in every method that would add it.

    A tracer that the application passes as a callback, or that a chain around the model has, still works.
    """

    def _traceable(self) -> bool:
        """Return whether LangSmith's environment variables apply."""
        return False

    def _untraced(self) -> AbstractContextManager[Any]:
        return untraced(langsmith=self._traceable())

    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Answer several conversations; see the base class."""
        with self._untraced():
            return super().generate(*args, **kwargs)

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Answer several conversations; see the base class."""
        with self._untraced():
            return await super().agenerate(*args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[AIMessageChunk]:
        """Answer piece by piece; see the base class."""
        return iterate_untraced(super().stream(*args, **kwargs), langsmith=self._traceable())

    def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[AIMessageChunk]:
        """Answer piece by piece; see the base class."""
        return aiterate_untraced(super().astream(*args, **kwargs), langsmith=self._traceable())

    def stream_events(self, *args: Any, **kwargs: Any) -> Any:
        """Answer event by event; see the base class."""
        with self._untraced():
            return super().stream_events(*args, **kwargs)

    def astream_events(self, *args: Any, **kwargs: Any) -> Any:
        """Answer event by event; see the base class."""
        events = super().astream_events(*args, **kwargs)
        if isinstance(events, AsyncIterator):  # versions 1 and 2 go through astream
            return events

        async def started() -> Any:
            with self._untraced():
                return await events

        return started()


class UntracedChain(Runnable[Any, Any]):
    """A chain whose own steps LangSmith's environment variables do not trace either.

    Args:
        chain: the chain.
        langsmith: whether the variables have an effect after all.
    """

    def __init__(self, chain: Runnable[Any, Any], *, langsmith: bool) -> None:
        self._chain, self._langsmith = chain, langsmith

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Run the chain; see the base class."""
        with untraced(langsmith=self._langsmith):
            return self._chain.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Run the chain; see the base class."""
        with untraced(langsmith=self._langsmith):
            return await self._chain.ainvoke(input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None) -> Iterator[Any]:  # noqa: A002
        """Yield what the chain yields; see the base class."""
        return iterate_untraced(self._chain.stream(input, config, **kwargs), langsmith=self._langsmith)

    def astream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any | None,
    ) -> AsyncIterator[Any]:
        """Yield what the chain yields; see the base class."""
        return aiterate_untraced(self._chain.astream(input, config, **kwargs), langsmith=self._langsmith)
