"""What joins the worker's jobs to what decodes for many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cascade.errors import CascadeError


class Stepper(Protocol):
    """What decodes for many jobs at once (`engine.scheduler`)."""

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        ...

    def step(self) -> Sequence[Ticket]:
        """Decode once; return the tickets that are done."""
        ...

    def fail(self, error: CascadeError) -> Sequence[Ticket]:
        """Give everything up; return all tickets."""
        ...

    def interrupt(self) -> None:
        """End the decode in flight if it is in vain; called from any thread."""
        ...


class Ticket:
    """What a job waits for, given out by a stepper: the job yields it and goes on when it is done."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.done = self.abandoned = False

    def abandon(self) -> None:
        """Say from any thread that nobody waits for it any more."""
        self.abandoned = True
        self.stepper.interrupt()
