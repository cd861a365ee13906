"""One call of `learn`: its clock, its progress, and whether it has been asked to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from cascade.errors import CascadeError

Report = Callable[[str, float], None]
Note = Callable[[str], None]
# Shares of the whole, as measured on BANKING77; what is left out of a call is skipped by the bar.
STAGES = {"reading": 0.03, "embedding": 0.55, "fitting": 0.35, "measuring": 0.05, "writing": 0.02}


def overall(stage: str, share: float) -> float:
    """Return which share of the whole is done; a stage of another name counts as `fitting`."""
    names = list(STAGES)
    here = names.index(stage if stage in STAGES else "fitting")
    return sum(STAGES[name] for name in names[:here]) + share * STAGES[names[here]]


class StoppedError(CascadeError):
    """The call was stopped before there was anything to keep as an expert."""


class Session:
    """What a call of `learn` goes by.

    A size asks `seconds_left` now and then and ends with the best it has when that is 0: the time is up, or
    somebody has interrupted.
    """

    def __init__(
        self,
        minutes: float,
        on_progress: Report | None = None,
        on_note: Note | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        """Start the clock.

        Args:
            minutes: how long the call may take.
            on_progress: called with a stage and the share of it that is done.
            on_note: called with each remark for the user.
            stopped: asked whether to end with the best so far.
        """
        self.started = time.monotonic()
        self._deadline = self.started + 60.0 * minutes
        self._on_progress = on_progress
        self._on_note = on_note
        self._stopped = stopped
        self.cut_short: str | None = None

    def seconds_left(self) -> float:
        """Return the seconds that are left, 0 if none are or the call was stopped."""
        if self.stopped:
            self.cut_short = self.cut_short or "stopped"
            return 0.0
        left = max(0.0, self._deadline - time.monotonic())
        if not left:
            self.cut_short = self.cut_short or "time"
        return left

    @property
    def stopped(self) -> bool:
        """Whether somebody has asked to stop."""
        return self._stopped is not None and self._stopped()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def report(self, stage: str, share: float) -> None:
        """Say that `share` (0 to 1) of a stage is done."""
        if self._on_progress is not None:
            self._on_progress(stage, min(1.0, max(0.0, share)))

    def note(self, text: str) -> None:
        """Say something to the user."""
        if self._on_note is not None:
            self._on_note(text)
