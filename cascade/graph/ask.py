"""The single place where models are called: guard, time limit, price, record."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from langgraph.errors import GraphBubbleUp

from cascade.errors import ModelError, PrivacyError
from cascade.models.base import Model, OnText, Prompt, Reply, charge
from cascade.records import Call, Request, Role

GRACE = 0.1  # seconds for a model to end by its own time-out, whose message says more than ours
LABELS_KEPT = 10  # of a label distribution in the trace; signals are measured on the whole of it


async def ask(
    model: Model,
    request: Request,
    *,
    role: Role = "answer",
    sample: int = 0,
    seconds: float | None = None,
    on_text: OnText | None = None,
) -> tuple[Call, Reply | None]:
    """Call `model` once and return the record of the call, with the reply unless it failed.

    Args:
        model: whom to ask.
        request: what to ask.
        role: why it is asked.
        sample: which of the stage's samples this is.
        seconds: time left to the run; the call is cut off after it or the model's own time-out.
        on_text: receives the text piece by piece, where the model streams.

    Raises:
        PrivacyError: the request is local-only and the model is not. This is the last guard.
    """
    if request.local_only and not model.local:
        raise PrivacyError(f"model {model.name!r} is not local and the request is local-only; not called")
    timeout = model.timeout if seconds is None else min(model.timeout, seconds)
    start = time.perf_counter()
    outcome = await _outcome(model, Prompt(request.text, sample, timeout), on_text)
    call = Call(
        model=model.name,
        tier=model.tier,
        role=role,
        sample=sample,
        local=model.local,
        seconds=time.perf_counter() - start,
        cost_usd=charge(model.price, outcome),
        **_answer(outcome),
    )
    return call, outcome if isinstance(outcome, Reply) else None


async def _outcome(model: Model, prompt: Prompt, on_text: OnText | None) -> Reply | ModelError:
    """Ask, and turn whatever goes wrong into the error of a recorded, failed call."""
    try:
        async with asyncio.timeout((prompt.timeout or model.timeout) + GRACE):
            return await model.ask(prompt, on_text)
    except GraphBubbleUp:  # LangGraph's interrupt: the run waits for a person
        raise
    except ModelError as failure:
        return failure
    except TimeoutError:
        trouble = f"no answer within {prompt.timeout:.3g} s"
    except Exception as failure:  # noqa: BLE001 - whatever a model raises is a recorded, failed call
        trouble = f"{type(failure).__name__}: {failure}"
    # The model did not say what the broken call costs: limits stay safe only with its worst case.
    return ModelError(f"model {model.name!r}: {trouble}", billed=model.worst_case(prompt.text))


def _answer(outcome: Reply | ModelError) -> dict[str, Any]:
    """Return the fields of a `Call` that an outcome decides."""
    if isinstance(outcome, ModelError):
        return {"error": str(outcome)}
    kept = None if outcome.labels is None else dict(list(outcome.labels.items())[:LABELS_KEPT])
    return {
        "text": outcome.text,
        "tokens_in": outcome.tokens_in,
        "tokens_out": outcome.tokens_out,
        "labels": kept,
        "tokens": outcome.tokens,
        "meta": outcome.meta,
    }
