"""The only place that calls models: guard, time limit, price, record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from langgraph.errors import GraphBubbleUp

from cascade.confidence import validity
from cascade.errors import ModelError, PrivacyError
from cascade.graph.guard import NO_GUARD, EndpointGuard
from cascade.models.base import Model, OnText, Prompt, Reply, StopEarly, charge, cost
from cascade.records import Call, Request, Role

GRACE = 0.1  # seconds that let a model time out by itself first; its message says more than ours
LABELS_KEPT = 10  # of a label distribution in the trace; signals are measured on the whole of it


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

    Args:
        model: the model to ask.
        request: the request.
        role: what the answer is for.
        sample: which of the stage's samples this is.
        seconds: time left to the run; the call is cut off after it or the model's own time-out.
        on_text: receives the text piece by piece, where the model streams.
        guard: the model's circuit breaker and queue.
        stop_early: says from the tokens so far whether to stop; a stopped call is a failed one.
        record: also receives the call, even if this task is cancelled in the middle of it.
        began: `time.perf_counter()` when the run began, for the call's `started`.

    Raises:
        PrivacyError: the request is local-only and the model is not. This is the last guard.
    """
    if request.local_only and not model.local:
        raise PrivacyError(f"model {model.name!r} is not local and the request is local-only; not called")
    timeout = model.timeout if seconds is None else min(model.timeout, seconds)
    prompt = Prompt(request if role == "answer" else request.text, sample, timeout, stop_early)
    model_call = _ModelCall(model, prompt, guard)
    start = time.perf_counter()
    cancelled: asyncio.CancelledError | None = None
    try:
        outcome = await model_call.outcome(on_text)
    except asyncio.CancelledError as error:
        cancelled, outcome = error, model_call.cancelled(error)
    call = Call(
        model=model.name,
        tier=model.tier,
        role=role,
        sample=sample,
        local=model.local,
        started=0.0 if began is None else start - began,
        seconds=time.perf_counter() - start,
        cost_usd=charge(model.price, outcome),
        **_answer(outcome, request if role == "answer" else None),
    )
    usable = outcome if isinstance(outcome, Reply) and call.error is None else None
    if record is not None:
        record(Attempt(call, usable, isinstance(outcome, ModelError) and not model_call.healthy(outcome)))
    if cancelled is not None:
        raise cancelled
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

    def cancelled(self, error: asyncio.CancelledError) -> ModelError:
        """Return the failure of a call that is cancelled now; it may have to be paid for."""
        why = f": {error.args[0]}" if error.args and isinstance(error.args[0], str) else ""
        return ModelError(f"cancelled{why}", self._worst() if self._started else (0, 0), healthy=True)

    def _verdict(self, failure: ModelError) -> bool | None:
        cut_off = self._limit < self._model.timeout and time.perf_counter() >= self._cutoff
        return None if failure.refused or cut_off else failure.healthy

    async def _ask_model(self, on_text: OnText | None) -> Reply | ModelError:
        try:
            async with asyncio.timeout(self._limit + GRACE), self._guard.slot():
                self._started = True
                return await self._model.ask(self._prompt, on_text)
        except GraphBubbleUp:  # LangGraph's interrupt: the run waits for a person
            raise
        except ModelError as failure:
            return failure
        except TimeoutError:
            if not self._started:
                text = f"is busy: no free slot (concurrency) within {self._limit:.3g} s"
                return ModelError(f"model {self._model.name!r} {text}", healthy=True, refused="busy")
            reason = f"no answer within {self._limit:.3g} s"
        except Exception as failure:  # noqa: BLE001 - whatever a model raises is a recorded, failed call
            reason = f"{type(failure).__name__}: {failure}"
        # The model did not say what the broken call costs: limits stay safe only with its worst case.
        return ModelError(f"model {self._model.name!r}: {reason}", billed=self._worst())

    def _worst(self) -> tuple[int, int]:
        return self._model.worst_case(self._prompt)


def worst_cost(model: Model, request: Request) -> float:
    """Return the worst case of one call of `model`, in USD."""
    return cost(model.price, *model.worst_case(Prompt(request)))


def _answer(outcome: Reply | ModelError, request: Request | None) -> dict[str, Any]:
    """Return the fields of a `Call` that an outcome decides; an answer to `request` must be valid, too."""
    if isinstance(outcome, ModelError):
        told = {"refused": outcome.refused, "run": outcome.run}
        return {"error": str(outcome), "meta": {name: value for name, value in told.items() if value}}
    used = {"tokens_in": outcome.tokens_in, "tokens_out": outcome.tokens_out, "tokens": outcome.tokens}
    if outcome.meta.get("finish_reason") == "early_exit":
        why = f"stopped after {outcome.tokens_out} tokens: its confidence could no longer be enough"
        return {"error": why, "meta": outcome.meta, **used}
    kept = None if outcome.labels is None else dict(list(outcome.labels.items())[:LABELS_KEPT])
    return {
        "text": outcome.text,
        "labels": kept,
        "tool_calls": outcome.tool_calls,
        "meta": outcome.meta | (validity.measured(request, outcome) if request is not None else {}),
        **used,
    }
