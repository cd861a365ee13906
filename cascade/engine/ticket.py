"""What joins the jobs of the decode thread to what decodes for many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cascade.errors import CascadeError


class Stepper(Protocol):
    """Decodes for many jobs at once; see `engine.scheduler`."""

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        ...

    def step(self) -> Sequence[Ticket]:
        """Decode once; return the tickets that are done."""
        ...

    def fail(self, error: CascadeError) -> Sequence[Ticket]:
        """End everything with `error`; return all tickets."""
        ...

    def interrupt(self) -> None:
        """End the decode in flight if most of it is for abandoned tickets; may be called from any thread."""
        ...


class Ticket:
    """What a job waits for: the job yields it, and continues once its stepper has marked it as done."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.done = self.abandoned = False

    def abandon(self) -> None:
        """Mark it as no longer awaited; may be called from any thread."""
        self.abandoned = True
        self.stepper.interrupt()
