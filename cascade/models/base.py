"""The contract of a model: one method that takes a prompt and returns a reply.

Composite or remote, local or human, every model has this shape. A model raises `ModelError` when a
call fails; the single call site (`cascade.graph.ask`) turns that into a recorded `Call`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cascade.config.schema import Price
from cascade.errors import ModelError
from cascade.records import Token

OnText = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one call asks: text, which sample of the stage it is, and the seconds it may take."""

    text: str
    sample: int = 0
    timeout: float | None = None


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


class Model(Protocol):
    """A callable endpoint.

    Attributes:
        name: its name in the graph.
        tier: its cost level.
        local: whether requests stay on this machine.
        price: USD per million tokens; None if unknown (refused by `cascade check`).
        timeout: seconds that one call may take.
    """

    name: str
    tier: str
    local: bool
    price: Price | None
    timeout: float

    def unavailable(self) -> str | None:
        """Return why no call can be made now (a missing key, say), or None if one can."""
        ...

    def worst_case(self, text: str) -> tuple[int, int]:
        """Return upper bounds of (prompt tokens, generated tokens) of one call with `text`."""
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
