"""The contract of a model: one method that takes a prompt and returns a reply.

Composite or remote, local or human, every model has this shape. A model raises `ModelError` when a
call fails; the single call site (`cascade.graph.ask`) turns that into a recorded `Call`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from cascade.errors import ModelError
from cascade.records import Message, Request, Role, Token, Tool, ToolCall
from cascade.spec.parts import Price

OnText = Callable[[str], None]


class Running(Protocol):
    """Statistics of the tokens that a draft has so far; `name` is logprob, margin or entropy, in nats."""

    count: int

    def mean(self, name: str = "logprob") -> float:
        """Return the mean of `name` over the tokens."""
        ...

    def quantile(self, share: float, name: str = "logprob") -> float:
        """Return the smallest value of `name` that at least `share` of the tokens do not exceed."""
        ...


StopEarly = Callable[[Running], bool]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one call asks: the request's fields, which sample of the stage it is, the seconds it may take.

    `stop_early` is asked after each token of free text that is generated in this process, with the statistics
    so far; once it says yes, the reply ends there with the finish reason `early_exit`. A local model asks it
    on the decode thread, so it must be quick.
    """

    text: str
    sample: int = 0
    timeout: float | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    output_schema: dict[str, Any] | None = None
    stop_early: StopEarly | None = None

    @classmethod
    def of(
        cls, request: Request, *, role: Role = "answer", sample: int = 0, timeout: float | None = None
    ) -> Self:
        """Return what a call for `request` asks; a gate's model reads `text` alone."""
        if role == "gate":
            return cls(request.text, sample, timeout)
        return cls(
            request.text,
            sample,
            timeout,
            request.messages,
            request.tools,
            request.tool_choice,
            request.output_schema,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, with its raw evidence.

    `labels` is the whole distribution over the closed label set (sums to 1), best label first.
    `tokens` are the generated tokens with statistics. `meta` is plain JSON (finish reason, batch …).
    `billed` is what to price where the model reports no token counts: upper bounds, never shown as counts.
    """

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    labels: Mapping[str, float] | None = None
    tokens: tuple[Token, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    billed: tuple[int, int] | None = None
    tool_calls: tuple[ToolCall, ...] = ()


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
    found: Sequence[Model] = getattr(model, "deployments", (model,))
    return found


def cost(price: Price | None, tokens_in: int, tokens_out: int) -> float:
    """Return the cost in USD of one call; an unknown price counts as zero and is refused by the checks."""
    if price is None:
        return 0.0
    return (tokens_in * price.input + tokens_out * price.output) / 1e6


def charge(price: Price | None, outcome: Reply | ModelError) -> float:
    """Return the cost in USD of a call that ended with `outcome`; failed calls can cost money too."""
    if isinstance(outcome, ModelError) or outcome.billed is not None:
        return cost(price, *(outcome.billed or (0, 0)))
    return cost(price, outcome.tokens_in, outcome.tokens_out)
