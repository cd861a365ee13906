"""A stage's shadow at work: a second model, asked beside the stage, whose answer goes into the trace only.

Whatever happens to it, the request does not notice. The stage does not wait: the run goes on, and ends when
its shadows have ended, so that every call is in the trace and paid for.
"""

from __future__ import annotations

import asyncio
import logging

from cascade.graph.ask import Attempt, ask
from cascade.graph.plan import Plan
from cascade.graph.stage_budget import StageBudget
from cascade.policy.budget import Spend
from cascade.policy.trials import noted
from cascade.records import Call, Request, Step, Trial
from cascade.spec.schema import Stage

_log = logging.getLogger("cascade.graph")


class Shadow:
    """Asks the shadow of `stage` once, on its first endpoint that can be asked.

    Args:
        plan: the graph and its models.
        stage: the stage beside which it is asked.
        request: what is asked.
        trial: what the trace says of it so far; one that is refused is never started.
        worst: the most that it can cost.
        run: the run's id, shown with reservations.
        began: `time.perf_counter()` when the run began.
    """

    def __init__(
        self,
        plan: Plan,
        stage: Stage,
        request: Request,
        trial: Trial,
        worst: Spend,
        run: str | None,
        began: float,
    ) -> None:
        self._plan, self._request, self._began = plan, request, began
        self.stage, self.trial, self._worst = stage.name, trial, worst
        self._seconds = None if stage.shadow is None else stage.shadow.seconds
        self._budget = StageBudget(plan.graph, request, Spend(), plan.book, run)
        self._calls: list[Call] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether it is not at work, or not any more."""
        return self._task is None or self._task.done()

    @property
    def spend(self) -> Spend:
        """What it has cost, or may cost while it is at work."""
        if not self.ended:
            return self._worst
        return Spend(sum(call.cost_usd for call in self._calls), calls=len(self._calls))

    def start(self, seconds: float | None) -> None:
        """Begin, with `seconds` left to the run."""
        limits = [each for each in (seconds, self._seconds) if each is not None]
        self._task = asyncio.create_task(self._ask(min(limits, default=None)))

    def cancel(self) -> None:
        """Break it off; a call that has begun is recorded, and may have to be paid for."""
        if self._task is not None:
            self._task.cancel("shadow")

    async def wait(self) -> None:
        """Wait until it has ended; a wait that is cancelled cancels it."""
        if self._task is None:
            return
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait({self._task})
            raise

    def noted(self, step: Step) -> Step:
        """Return `step` with the call, and with what the trace says of it; unchanged while it is at work."""
        if not self.ended or any(fact == self.trial for fact in step.decision.facts):
            return step
        calls = (*step.calls, *self._calls)
        return step.model_copy(update={"calls": calls, "decision": noted(step.decision, [self.trial])})

    async def _ask(self, seconds: float | None) -> None:
        try:
            await self._ask_paid(seconds)
        except Exception:  # noqa: BLE001 - no failure of a shadow may reach the request
            _log.exception("the shadow %s of stage %s failed; the run goes on", self.trial.model, self.stage)
        finally:
            self._budget.settle(self._calls)

    async def _ask_paid(self, seconds: float | None) -> None:
        shortfall = await self._budget.reserve(self._worst)
        if shortfall is not None:
            detail = shortfall if isinstance(shortfall, str) else f"${shortfall.left_usd:.6f} left today"
            self.trial = self.trial.model_copy(update={"refused": "over_budget", "detail": detail})
            return
        model, guard = self._plan.endpoints(self.trial.model)[0]
        attempts: list[Attempt] = []
        try:
            call, _ = await ask(
                model, self._request, role="shadow", seconds=seconds, guard=guard, record=attempts.append,
                began=self._began,
            )  # fmt: skip
            self._calls = [call]
        except BaseException:
            self._calls = [attempt.call for attempt in attempts]
            raise
