"""The contract of a model: one method that takes a prompt and returns a reply.

Composite or remote, local or human, every model has this shape. A model raises `ModelError` when a
call fails; the single call site (`cascade.graph.ask`) turns that into a recorded `Call`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cascade.errors import ModelError
from cascade.policy.early_exit import Tokens
from cascade.records import Message, Request, Token, Tool, ToolCall
from cascade.spec.parts import Price

OnText = Callable[[str], None]


StopEarly = Callable[[Tokens], bool]


@dataclass(frozen=True, slots=True, init=False)
class Prompt:
    """What one call asks.

    Attributes:
        request: what is asked; for a gate's model the text alone.
        sample: which of the stage's samples this is, from 0.
        timeout: seconds that the call may take; None leaves it to the model.
        stop_early: is asked after each token of free text that is generated in this process, with the
            statistics so far; once it says yes, the reply ends there with the finish reason `early_exit`. A
            local model asks it on the decode thread, so it must be quick.
    """

    request: Request
    sample: int = 0
    timeout: float | None = None
    stop_early: StopEarly | None = None

    def __init__(
        self,
        request: Request | str,
        sample: int = 0,
        timeout: float | None = None,
        stop_early: StopEarly | None = None,
    ) -> None:
        """Ask with `request`, or with a text alone."""
        values = (Request(text=request) if isinstance(request, str) else request, sample, timeout, stop_early)
        for name, value in zip(("request", "sample", "timeout", "stop_early"), values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def text(self) -> str:
        """The text; of a conversation, the last user message."""
        return self.request.text

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation, empty where there is only a text."""
        return self.request.messages

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that the answer may call."""
        return self.request.tools

    @property
    def tool_choice(self) -> str:
        """One of auto, none, required, or a tool's name."""
        return self.request.tool_choice

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The JSON Schema that the answer must satisfy, if any."""
        return self.request.output_schema


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, with its raw evidence.

    `labels` is the whole distribution over the closed label set (sums to 1), best label first.
    `tokens` are the generated tokens with statistics. `meta` is plain JSON (finish reason, batch …).
    `billed` is what to price where the model reports no token counts: upper bounds, never shown as counts.
    `tokens_cached` are those of `tokens_in` that the server had cached, which can be cheaper.
    """

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    labels: Mapping[str, float] | None = None
    tokens: tuple[Token, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    billed: tuple[int, int] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tokens_cached: int = 0


class Model(Protocol):
    """A callable endpoint.

    Attributes:
        name: its name in the graph.
        tier: its cost level.
        local: whether requests stay on this machine.
        price: USD per million tokens; None if unknown (refused by `cascade check`).
        timeout: seconds that one call may take.
        closed: whether it answers with one of a closed set of labels only. Such a model reads `text` alone,
            and is not asked for JSON or tool calls.
    """

    name: str
    tier: str
    local: bool
    price: Price | None
    timeout: float
    closed: bool

    def unavailable(self) -> str | None:
        """Return why no call can be made now (a missing key, say), or None if one can."""
        ...

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        """Return upper bounds of (prompt tokens, generated tokens) of one call with `prompt`."""
        ...

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Answer `prompt`; with `on_text`, also hand over the text piece by piece as it comes.

        Raises:
            ModelError: the call failed; the message names the model, the cause and the fix.
        """
        ...

    async def aclose(self) -> None:
        """Release what the model holds (connections, memory)."""
        ...


def deployments(model: Model) -> Sequence[Model]:
    """Return the equal endpoints behind `model`, in the order in which they are asked; often itself alone."""
    endpoints: Sequence[Model] = getattr(model, "deployments", (model,))
    return endpoints


def prompt_bytes(model: Model, request: Request) -> int:
    """Return about how many UTF-8 bytes `model` reads of `request`: what it says itself, else its texts.

    No bound: estimates stand on it (`cascade.policy.result.price_baseline`), limits on `Model.worst_case`.
    """
    own = getattr(model, "prompt_bytes", None)
    if own is not None:
        return int(own(Prompt(request)))
    texts = [message.content for message in request.messages] or [request.text]
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def cost(price: Price | None, tokens_in: int, tokens_out: int, cached: int = 0) -> float:
    """Return the cost in USD of one call; an unknown price counts as zero and is refused by the checks.

    Args:
        price: USD per million tokens.
        tokens_in: tokens of the prompt.
        tokens_out: generated tokens.
        cached: those of the prompt that the server had cached.
    """
    if price is None:
        return 0.0
    saved = 0.0 if price.cached is None else cached * (price.input - price.cached)
    return (tokens_in * price.input - saved + tokens_out * price.output) / 1e6


_UNSENT = "Cascade: nothing was sent."


def mark_unsent(cancelled: BaseException) -> None:
    """Note on a cancellation that the call's request had not left this machine, so that it costs nothing."""
    cancelled.add_note(_UNSENT)


def is_unsent(cancelled: BaseException) -> bool:
    """Return whether `mark_unsent` was called."""
    return _UNSENT in getattr(cancelled, "__notes__", ())


def charge(price: Price | None, outcome: Reply | ModelError) -> float:
    """Return the cost in USD of a call that ended with `outcome`; failed calls can cost money too."""
    if isinstance(outcome, ModelError) or outcome.billed is not None:
        return cost(price, *(outcome.billed or (0, 0)))
    return cost(price, outcome.tokens_in, outcome.tokens_out, outcome.tokens_cached)
