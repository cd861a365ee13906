"""One stage, from request and trace to the next step. Knows nothing of LangGraph but its interrupts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from langgraph.errors import GraphBubbleUp

from cascade.graph.plan import Plan
from cascade.graph.shadow import Shadow
from cascade.graph.stage_run import StageRun
from cascade.models.base import OnText
from cascade.policy.budget import Spend, spent
from cascade.policy.decide import stopped
from cascade.records import Decision, Request, Step
from cascade.spec.schema import Stage

__all__ = ["Plan", "RunContext", "run_stage", "run_stages"]


class RunContext(NamedTuple):
    """What the stages of a run know about it, and what they report to.

    Attributes:
        run: its id; without one nothing is audited.
        began: `time.perf_counter()` when it began; without it stages count as if one began where the one
            before ended.
        on_text: receives the answer piece by piece, only from a stage that accepts without a check.
        entered: is told the name of each stage that starts.
        cancelled_steps: receives the steps (rule `cancelled`) of stages that a cancellation or an error ends
            while they are at work.
        request: what is asked, checked already; without it each stage reads and checks the graph's state.
        steps: the steps so far, to which each stage adds its own; without it each stage reads the state's.
        shadows: receives the shadows that are still at work when their stage has decided; who gives it waits
            for them, and notes them in the steps. Without it each stage waits for its own shadow.
    """

    run: str | None = None
    began: float | None = None
    on_text: OnText | None = None
    entered: Callable[[str], object] = str
    cancelled_steps: list[Step] | None = None
    request: Request | None = None
    steps: list[Step] | None = None
    shadows: list[Shadow] | None = None


NO_CONTEXT = RunContext()


async def run_stage(
    plan: Plan, stage: Stage, request: Request, trace: Sequence[Step], context: RunContext = NO_CONTEXT
) -> Step:
    """Ask the models of `stage` and decide what happens next.

    Args:
        plan: the graph and its models.
        stage: the stage to run.
        request: what is asked.
        trace: the steps so far; what is left of the limits follows from them.
        context: the run that it belongs to.
    """
    stage_run = _stage_run(plan, stage, request, trace, context)
    try:
        step = stage_run.step(await stage_run.decide(context.on_text))
        return await _left_behind(step, stage_run.shadow, context)
    except GraphBubbleUp:  # the run waits for a person
        raise
    except BaseException:
        await _end_shadow(stage_run.shadow)
        if context.cancelled_steps is not None:
            context.cancelled_steps.append(stage_run.step(stopped("cancelled", None)))
        raise


async def run_stages(
    plan: Plan, stage: Stage, request: Request, trace: Sequence[Step], context: RunContext = NO_CONTEXT
) -> list[Step]:
    """Run `stage`; where it has a `hedge`, the next one too if it takes longer. See `run_stage`.

    Of two stages that run at once nothing streams, and the one whose answer ends the run stands last.
    """
    after = plan.graph.next_stage(stage.name)
    if stage.hedge is None or after is None:
        return [await run_stage(plan, stage, request, trace, context)]
    one = _stage_run(plan, stage, request, trace, context)
    first = asyncio.create_task(one.decide(None))
    stage_runs = {first: one}
    try:
        if not (await asyncio.wait({first}, timeout=stage.hedge))[0]:
            two = _stage_run(plan, plan.graph.stage(after), request, trace, context, beside=one)
            if two.admission().refusal is None:
                context.entered(after)
                stage_runs[asyncio.create_task(two.decide(None))] = two
        steps = await _race(stage_runs)
        shadows = {stage_run.stage.name: stage_run.shadow for stage_run in stage_runs.values()}
        return [await _left_behind(step, shadows[step.stage], context) for step in steps]
    except GraphBubbleUp:
        raise
    except BaseException:
        await _stop(stage_runs, None)
        for stage_run in stage_runs.values():
            await _end_shadow(stage_run.shadow)
        if context.cancelled_steps is not None:
            context.cancelled_steps.extend(
                stage_run.step(stopped("cancelled", None)) for stage_run in stage_runs.values()
            )
        raise
    finally:
        await _stop(stage_runs, None)


async def _race(stage_runs: dict[asyncio.Task[Decision], StageRun]) -> list[Step]:
    """Wait for an accepted answer, or for all; return the steps, the deciding one last."""
    waiting, done = set(stage_runs), set[asyncio.Task[Decision]]()
    while waiting:
        ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= ended
        winner = next(
            (task for task in stage_runs if task in done and task.result().action == "accept"), None
        )
        if winner is not None and len(stage_runs) > 1:
            return await _won(stage_runs, winner)
    return [stage_run.step(task.result()) for task, stage_run in stage_runs.items()]


async def _won(
    stage_runs: dict[asyncio.Task[Decision], StageRun], winner: asyncio.Task[Decision]
) -> list[Step]:
    best = stage_runs[winner]
    (other,) = (task for task in stage_runs if task is not winner)
    before = other.result() if other.done() else None
    await _stop(stage_runs, "hedged")
    decision = stopped("hedged", best.stage.name)
    if before is not None and before.action != "accept":  # it had decided already, and went on to the winner
        decision = before.model_copy(update={"action": "escalate", "to": best.stage.name})
    return [stage_runs[other].step(decision), best.step(winner.result())]


async def _left_behind(step: Step, shadow: Shadow | None, context: RunContext) -> Step:
    """Leave a shadow that is still at work to the run, or wait for it where nobody else does."""
    if shadow is None or shadow.ended:
        return step
    if context.shadows is not None:
        context.shadows.append(shadow)
        return step
    await shadow.wait()
    return shadow.noted(step)


async def _end_shadow(shadow: Shadow | None) -> None:
    """Cancel a shadow whose stage was broken off, and wait until its call is recorded."""
    if shadow is not None:
        shadow.cancel()
        await shadow.wait()


async def _stop(stage_runs: dict[asyncio.Task[Decision], StageRun], why: str | None) -> None:
    """Cancel what is still at work, and wait until its calls are recorded."""
    for task in stage_runs:
        task.cancel(why)
    await asyncio.gather(*stage_runs, return_exceptions=True)


def _stage_run(
    plan: Plan,
    stage: Stage,
    request: Request,
    trace: Sequence[Step],
    context: RunContext,
    beside: StageRun | None = None,
) -> StageRun:
    """Return the run of `stage`; what a stage run `beside` it may still cost is priced as used."""
    now, used, limit = time.perf_counter(), _spent(trace, context), plan.graph.limits.seconds
    deadline = None if limit is None else now + limit - used.seconds
    began = now - used.seconds if context.began is None else context.began
    if beside is None:
        context.entered(stage.name)
        return StageRun(plan, stage, request, used, deadline, context.run, began, trace)
    worst = beside.budget.worst
    both = Spend(used.cost_usd + worst.cost_usd, used.seconds, used.calls + worst.calls)
    stage_run = StageRun(plan, stage, request, both, beside.deadline, context.run, began, trace)
    beside.budget.beside = stage_run.budget
    return stage_run


def _spent(trace: Sequence[Step], context: RunContext) -> Spend:
    """Return what a run has used, and what the shadows that are still at work may cost."""
    used = spent(trace)
    for shadow in context.shadows or ():
        used = Spend(used.cost_usd + shadow.spend.cost_usd, used.seconds, used.calls + shadow.spend.calls)
    return used
