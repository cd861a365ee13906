"""One stage, from request and trace to the next step. Knows nothing of LangGraph."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cascade.graph.plan import Plan
from cascade.graph.turn import Turn
from cascade.models.base import OnText
from cascade.policy.budget import Spend, spent
from cascade.policy.decide import stopped
from cascade.records import Decision, Request, Step
from cascade.spec.schema import Stage

__all__ = ["Live", "Plan", "run_stage", "run_stages"]


class Live(NamedTuple):
    """What the stages of a run know of it, and whom they tell.

    Attributes:
        run: its id; without one nothing is audited.
        began: `time.perf_counter()` when it began; without it stages count as if one began where the one
            before ended.
        on_text: receives the answer piece by piece, only from a stage that accepts without a check.
        entered: is told the name of each stage that starts.
        left: receives the steps, by rule `cancelled`, of stages that are cancelled at work.
    """

    run: str | None = None
    began: float | None = None
    on_text: OnText | None = None
    entered: Callable[[str], object] = str
    left: list[Step] | None = None


ALONE = Live()


async def run_stage(
    plan: Plan, stage: Stage, request: Request, trace: Sequence[Step], live: Live = ALONE
) -> Step:
    """Ask the models of `stage` and decide what happens next.

    Args:
        plan: the graph and its models.
        stage: the stage to run.
        request: what is asked.
        trace: the steps so far; what is left of the limits follows from them.
        live: the run that it belongs to.
    """
    turn = _turn(plan, stage, request, trace, live)
    try:
        return turn.step(await turn.decide(live.on_text))
    except asyncio.CancelledError:
        if live.left is not None:
            live.left.append(turn.step(stopped("cancelled", None)))
        raise


async def run_stages(
    plan: Plan, stage: Stage, request: Request, trace: Sequence[Step], live: Live = ALONE
) -> list[Step]:
    """Run `stage`; where it has a `hedge`, the next one too if it takes longer. See `run_stage`.

    Of two stages that run at once nothing streams, and the one whose answer ends the run stands last.
    """
    after = plan.graph.next_stage(stage.name)
    if stage.hedge is None or after is None:
        return [await run_stage(plan, stage, request, trace, live)]
    one = _turn(plan, stage, request, trace, live)
    first = asyncio.create_task(one.decide(None))
    turns = {first: one}
    try:
        if not (await asyncio.wait({first}, timeout=stage.hedge))[0]:
            two = _turn(plan, plan.graph.stage(after), request, trace, live, beside=one)
            if two.admission() is None:
                live.entered(after)
                turns[asyncio.create_task(two.decide(None))] = two
        return await _race(turns)
    except asyncio.CancelledError:
        await _stop(turns, None)
        if live.left is not None:
            live.left.extend(turn.step(stopped("cancelled", None)) for turn in turns.values())
        raise
    finally:
        await _stop(turns, None)


async def _race(turns: dict[asyncio.Task[Decision], Turn]) -> list[Step]:
    """Wait for an accepted answer, or for all; return the steps, the deciding one last."""
    waiting, done = set(turns), set[asyncio.Task[Decision]]()
    while waiting:
        ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= ended
        winner = next((task for task in turns if task in done and task.result().action == "accept"), None)
        if winner is not None and len(turns) > 1:
            return await _won(turns, winner)
    return [turn.step(task.result()) for task, turn in turns.items()]


async def _won(turns: dict[asyncio.Task[Decision], Turn], winner: asyncio.Task[Decision]) -> list[Step]:
    best = turns[winner]
    (other,) = (task for task in turns if task is not winner)
    before = other.result() if other.done() else None
    await _stop(turns, "hedged")
    decision = stopped("hedged", best.stage.name)
    if before is not None and before.action != "accept":  # it had decided already, and went on to the winner
        decision = before.model_copy(update={"action": "escalate", "to": best.stage.name})
    return [turns[other].step(decision), best.step(winner.result())]


async def _stop(turns: dict[asyncio.Task[Decision], Turn], why: str | None) -> None:
    """Cancel what is still at work, and wait until its calls are recorded."""
    for task in turns:
        task.cancel(why)
    await asyncio.gather(*turns, return_exceptions=True)


def _turn(
    plan: Plan,
    stage: Stage,
    request: Request,
    trace: Sequence[Step],
    live: Live,
    beside: Turn | None = None,
) -> Turn:
    """Return the turn of `stage`; what a turn `beside` it may still cost is priced as used."""
    now, used, limit = time.perf_counter(), spent(trace), plan.graph.limits.seconds
    deadline = None if limit is None else now + limit - used.seconds
    began = now - used.seconds if live.began is None else live.began
    if beside is None:
        live.entered(stage.name)
        return Turn(plan, stage, request, used, deadline, live.run, began, trace)
    worst = beside.purse.worst
    both = Spend(used.cost_usd + worst.cost_usd, used.seconds, used.calls + worst.calls)
    turn = Turn(plan, stage, request, both, beside.deadline, live.run, began, trace)
    beside.purse.beside = turn.purse
    return turn
