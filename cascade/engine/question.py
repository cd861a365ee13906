"""What a job on the decode thread is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cascade.engine.generate import StopEarly
from cascade.records import Message, Token, Tool


class Question(NamedTuple):
    """The request as it came, the user message made of it, and which sample is asked for.

    `messages` is a whole conversation in place of `message`, with `tools` that the model may call.
    `grammar` (GBNF) and `stop` are this request's own; they replace and add to those of the model.
    `stop_early` may end the text; `begin` is called when it is the request's turn.
    """

    text: str
    message: str
    sample: int = 0
    emit: Callable[[str], object] | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    grammar: str | None = None
    stop: tuple[str, ...] = ()
    stop_early: StopEarly | None = None
    begin: Callable[[], object] = lambda: None


class Answer(NamedTuple):
    """A label with its distribution, or a text with its tokens."""

    text: str
    tokens_in: int
    tokens_out: int
    labels: dict[str, float] | None
    tokens: tuple[Token, ...]
    meta: dict[str, Any]
