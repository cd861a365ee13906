"""LangSmith's environment variables have no effect on what runs within these."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, TypeVar

T = TypeVar("T")


def untraced(*, langsmith: bool = False) -> AbstractContextManager[Any]:
    """Return a context in which LangSmith's environment variables have no effect, unless `langsmith`."""
    from langsmith import tracing_context
    from langsmith.utils import tracing_is_enabled

    return nullcontext() if langsmith or not tracing_is_enabled() else tracing_context(enabled=False)


def iterate_untraced(items: Iterator[T], *, langsmith: bool = False) -> Iterator[T]:
    """Yield from `items`, each of which is made within `untraced`."""
    while True:
        with untraced(langsmith=langsmith):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


async def aiterate_untraced(items: AsyncIterator[T], *, langsmith: bool = False) -> AsyncGenerator[T]:
    """Yield from `items`, each of which is made within `untraced`; closes them if they are a generator."""
    async with aclosing(items) if isinstance(items, AsyncGenerator) else nullcontext():
        while True:
            with untraced(langsmith=langsmith):
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item
