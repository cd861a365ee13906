"""The only place that calls models: guard, time limit, price, record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from langgraph.errors import GraphBubbleUp

from cascade.errors import ModelError, PrivacyError
from cascade.formats.plain import Pieces
from cascade.graph import outcome as outcomes
from cascade.graph.guard import NO_GUARD, EndpointGuard
from cascade.models.base import Model, OnText, Prompt, Reply, StopEarly, charge, cost, is_unsent
from cascade.records import Call, Request, Role

GRACE = 0.1  # seconds that let a model time out by itself first; its message says more than ours

_log = logging.getLogger("cascade.graph")


class Attempt(NamedTuple):
    """A call as it is recorded, with its reply unless it failed.

    `endpoint_failed` means that an equal endpoint may answer.
    """

    call: Call
    reply: Reply | None
    endpoint_failed: bool = False


OnAttempt = Callable[[Attempt], object]


async def ask(
    model: Model,
    request: Request,
    *,
    role: Role = "answer",
    sample: int = 0,
    seconds: float | None = None,
    on_text: OnText | None = None,
    guard: EndpointGuard = NO_GUARD,
    stop_early: StopEarly | None = None,
    record: OnAttempt | None = None,
    began: float | None = None,
) -> tuple[Call, Reply | None]:
    """Call `model` once and return the record of the call, with the reply unless it failed.

    The call is handed to `record` with its cost as soon as it has ended, before anything looks at the answer.

    Args:
        model: the model to ask.
        request: the request.
        role: what the answer is for.
        sample: which of the stage's samples this is.
        seconds: time left to the run; the call is cut off after it or the model's own time-out.
        on_text: receives the text piece by piece, where the model streams.
        guard: the model's circuit breaker and queue.
        stop_early: says from the tokens so far whether to stop; a stopped call is a failed one.
        record: also receives the call, not yet checked for validity, whatever ends it: an answer, a failure,
            a cancellation of this task, the end of the process.
        began: `time.perf_counter()` when the run began, for the call's `started`.

    Raises:
        PrivacyError: the request is local-only and the model is not. This is the last guard.
    """
    if request.local_only and not model.local:
        raise PrivacyError(f"model {model.name!r} is not local and the request is local-only; not called")
    timeout = model.timeout if seconds is None else min(model.timeout, seconds)
    prompt = Prompt(request.text if role == "gate" else request, sample, timeout, stop_early)
    model_call = _ModelCall(model, prompt, guard)
    start = time.perf_counter()
    ended: BaseException | None = None
    try:
        outcome = await model_call.outcome(on_text)
    except GraphBubbleUp:  # LangGraph's interrupt: the run waits for a person
        raise
    except BaseException as error:  # noqa: BLE001 - raised again below, once the call is recorded
        ended, outcome = error, model_call.broken_off(error)
    call = model_call.call(outcome, role, 0.0 if began is None else start - began, start)
    usable = outcome if isinstance(outcome, Reply) and call.error is None else None
    if record is not None:
        record(Attempt(call, usable, isinstance(outcome, ModelError) and not model_call.healthy(outcome)))
    if ended is not None:
        raise ended
    if usable is not None and role != "gate":
        call = outcomes.judged(call, usable, request)
    return call, usable


class _ModelCall:
    """One call, through the breaker and the queue to the model."""

    def __init__(self, model: Model, prompt: Prompt, guard: EndpointGuard) -> None:
        self._model, self._prompt, self._guard = model, prompt, guard
        self._started = False
        self._limit = prompt.timeout or model.timeout
        self._cutoff = 0.0

    async def outcome(self, on_text: OnText | None) -> Reply | ModelError:
        """Ask, and turn whatever goes wrong into the error of a recorded, failed call."""
        try:
            permit = self._guard.acquire()
        except ModelError as refusal:
            return refusal
        worked: bool | None = None
        self._cutoff = time.perf_counter() + 0.95 * self._limit
        try:
            outcome = await self._ask_model(on_text)
            worked = True if isinstance(outcome, Reply) else self._verdict(outcome)
        finally:  # a pause or a cancellation says nothing about the model
            self._guard.release(permit, worked)
        return outcome

    def healthy(self, failure: ModelError) -> bool:
        """Return whether the endpoint is not to blame for `failure`, so that an equal one would not help."""
        return failure.healthy and failure.refused is None

    def call(self, outcome: Reply | ModelError, role: Role, started: float, start: float) -> Call:
        """Return the record of a call that began at `start` on the clock and has ended with `outcome` now."""
        return Call(
            model=self._model.name,
            tier=self._model.tier,
            role=role,
            sample=self._prompt.sample,
            local=self._model.local,
            started=started,
            seconds=time.perf_counter() - start,
            cost_usd=charge(self._model.price, outcome),
            **outcomes.fields(outcome),
        )

    def broken_off(self, error: BaseException) -> ModelError:
        """Return the failure of a call that `error` breaks off; it may have to be paid for."""
        what = "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
        why = f": {error.args[0]}" if error.args and isinstance(error.args[0], str) else ""
        billed = self._worst() if self._started and not is_unsent(error) else (0, 0)
        return ModelError(f"{what}{why}", billed, healthy=True, reason=what)

    def _verdict(self, failure: ModelError) -> bool | None:
        cut_off = self._limit < self._model.timeout and time.perf_counter() >= self._cutoff
        return None if failure.refused or cut_off else failure.healthy

    async def _ask_model(self, on_text: OnText | None) -> Reply | ModelError:
        try:
            async with asyncio.timeout(self._limit + GRACE), self._guard.slot():
                self._started = True
                live = None if on_text is None else _LiveText(on_text)
                reply = await self._model.ask(self._prompt, None if live is None else live.add)
                sound = outcomes.unfenced_json(outcomes.sound(reply), self._prompt.request)
                if live is not None:
                    live.end()
                return sound
        except GraphBubbleUp:
            raise
        except ModelError as failure:
            return self._payable(failure)
        except TimeoutError:
            if not self._started:
                text = f"is busy: no free slot (concurrency) within {self._limit:.3g} s"
                return ModelError(f"model {self._model.name!r} {text}", healthy=True, refused="busy")
            why, reason = f"no answer within {self._limit:.3g} s", "timeout"
        except Exception as failure:  # noqa: BLE001 - whatever a model raises is a recorded, failed call
            why, reason = f"{type(failure).__name__}: {failure}", type(failure).__name__
        # The model did not say what the broken call costs: limits stay safe only with its worst case.
        return ModelError(f"model {self._model.name!r}: {why}", billed=self._worst(), reason=reason)

    def _payable(self, failure: ModelError) -> ModelError:
        """Return `failure`, with the worst case as its price where it names none."""
        try:
            outcomes.check_billed(failure.billed)
        except ValueError:
            failure.billed = self._worst()
        return failure

    def _worst(self) -> tuple[int, int]:
        return self._model.worst_case(self._prompt)


class _LiveText:
    """Hands over text as it comes, as valid Unicode; a receiver that raises gets no more of it."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text: OnText | None = on_text
        self._pieces = Pieces()

    def add(self, piece: str) -> None:
        """Hand over what `piece` completes."""
        self._give(self._pieces.add(piece))

    def end(self) -> None:
        """Hand over the rest."""
        self._give(self._pieces.end())

    def _give(self, text: str) -> None:
        if not text or self._on_text is None:
            return
        try:
            self._on_text(text)
        except Exception:  # noqa: BLE001 - the model is not to blame, and the call has to be paid for
            self._on_text = None
            _log.exception("what receives the text as it comes failed; it gets no more, and the call goes on")


def worst_cost(model: Model, request: Request) -> float:
    """Return the worst case of one call of `model`, in USD."""
    return cost(model.price, *model.worst_case(Prompt(request)))
