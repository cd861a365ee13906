"""A chat model that ignores LangSmith's environment variables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import LLMResult


class UntracedChatModel(BaseChatModel):
    """Disables LangSmith's automatic tracer in every method that would add it.

    A tracer that the application passes as a callback, or that a chain around the model has, still works.
    """

    def _traceable(self) -> bool:
        """Return whether LangSmith's environment variables apply."""
        return False

    def _untraced(self) -> AbstractContextManager[Any]:
        from langsmith import tracing_context

        return tracing_context(enabled=None if self._traceable() else False)

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
        pieces = super().stream(*args, **kwargs)
        while True:
            with self._untraced():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[AIMessageChunk]:
        """Answer piece by piece; see the base class."""
        pieces = super().astream(*args, **kwargs)
        while True:
            with self._untraced():
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece

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
