"""What stands between a stage and one endpoint of a model: its circuit breaker, and its bounded queue."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from cascade.errors import ModelError
from cascade.graph.breaker import Breaker, Pass
from cascade.graph.slots import Slots
from cascade.spec.kinds import ModelSettings


class EndpointGuard:
    """Lets calls through while the model works and has room; shared by every run of a cascade.

    Args:
        name: the model's name, for messages.
        config: its settings; None lets every call through.
    """

    def __init__(self, name: str, config: ModelSettings | None = None) -> None:
        self._name = name
        self._breaker = Breaker(config.breaker) if config is not None and config.breaker else None
        most = None if config is None else config.concurrency
        self._slots = Slots(name, most, config.queue) if config is not None and most is not None else None

    def refusal(self) -> str | None:
        """Return why no call would be let through now, or None."""
        why = self._breaker.refusal() if self._breaker is not None else None
        return None if why is None else self._broken(why)

    def enter(self) -> Pass | None:
        """Return leave to make one call, to be given back with `leave`; None where nothing guards.

        Raises:
            ModelError: the breaker is open.
        """
        entry = self._breaker.enter() if self._breaker is not None else None
        if isinstance(entry, str):
            raise ModelError(self._broken(entry), healthy=True, refused="breaker_open")
        return entry

    def leave(self, entry: Pass | None, good: bool | None) -> None:
        """Say how a call ended: it worked, it failed, or (None) it says nothing about the model."""
        if self._breaker is not None and entry is not None:
            self._breaker.leave(entry, good)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Hold one of the model's `concurrency` slots, after those that wait already.

        Raises:
            ModelError: the queue is full.
        """
        return nullcontext() if self._slots is None else self._slots.one()

    def _broken(self, why: str) -> str:
        return f"model {self._name!r} is left alone: its circuit breaker is {why}"


NO_GUARD = EndpointGuard("")
