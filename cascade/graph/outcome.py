"""What a call's outcome becomes: a reply that can be recorded, and the fields of its record.

Models are other people's code, and what they answer is other people's data. Whatever comes back, the call is
recorded and paid for, so nothing here raises after a model was asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cascade.confidence import validity
from cascade.errors import UNCLASSED, ModelError
from cascade.formats.markdown import unfenced
from cascade.formats.plain import plain_json, valid_unicode
from cascade.formats.spelling import within
from cascade.models.base import Reply
from cascade.records import Call, Request, Token, ToolCall

LABELS_KEPT = 10  # of a label distribution in the trace; signals are measured on the whole of it
MAX_COUNT = 2**31 - 1  # tokens of one call


def sound(reply: object) -> Reply:
    """Return `reply` with valid Unicode and plain JSON in all its parts.

    Raises:
        TypeError: it is not a reply, or a part of it has another type than replies have.
        ValueError: a number of tokens is not one.
    """
    if not isinstance(reply, Reply):
        raise TypeError(f"the model returned {type(reply).__name__}; expected a Reply")
    for name in ("tokens_in", "tokens_out"):
        _check_count(name, getattr(reply, name), MAX_COUNT)
    _check_count("tokens_cached", reply.tokens_cached, reply.tokens_in)
    check_billed(reply.billed)
    cleaned = replace(
        reply,
        text=valid_unicode(reply.text),
        tokens=tuple(map(_token, reply.tokens)),
        tool_calls=tuple(map(_tool_call, reply.tool_calls)),
        labels=None if reply.labels is None else {valid_unicode(k): v for k, v in reply.labels.items()},
        meta=plain_json(dict(reply.meta)),
    )
    Call(model="", tier="", **fields(cleaned))  # raises a ValueError of pydantic's
    return cleaned


def unfenced_json(reply: Reply, request: Request) -> Reply:
    """Return `reply` without the Markdown fence around the whole of an answer to a request for JSON."""
    inner = unfenced(reply.text)
    if request.output_schema is None or reply.tool_calls or inner == reply.text:
        return reply
    tokens = reply.tokens
    if "".join(token.text for token in tokens) == reply.text:
        start = reply.text.index(inner)
        tokens = within(tokens, [(start, start + len(inner))])
    return replace(reply, text=inner, tokens=tokens)


def check_billed(billed: object) -> None:
    """Check what a model says is to be paid.

    Raises:
        ValueError: it is not None, and not two numbers that nothing negative is among.
    """
    if billed is None:
        return
    if not isinstance(billed, tuple) or len(billed) != 2:
        raise ValueError(f"billed is {billed!r:.80}; expected two numbers of tokens")
    for value in billed:
        _check_count("billed", value, None)


def fields(outcome: Reply | ModelError) -> dict[str, Any]:
    """Return the fields of a `Call` that `outcome` decides."""
    if isinstance(outcome, ModelError):
        reason = None if outcome.refused or outcome.reason == UNCLASSED else outcome.reason
        told = {"refused": outcome.refused, "run": outcome.run, "reason": reason, "status": outcome.status}
        meta = {name: value for name, value in told.items() if value}
        return {"error": valid_unicode(str(outcome)), "meta": plain_json(meta)}
    used = {"tokens_in": outcome.tokens_in, "tokens_out": outcome.tokens_out, "tokens": outcome.tokens}
    if outcome.meta.get("finish_reason") == "early_exit":
        why = f"stopped after {outcome.tokens_out} tokens: its confidence could no longer be enough"
        return {"error": why, "meta": outcome.meta, **used}
    kept = None if outcome.labels is None else dict(list(outcome.labels.items())[:LABELS_KEPT])
    shown = {"text": outcome.text, "labels": kept, "tool_calls": outcome.tool_calls, "meta": outcome.meta}
    return shown | used


def judged(call: Call, reply: Reply, request: Request) -> Call:
    """Return `call` with what its `meta` says about validity; an answer that cannot be checked is invalid."""
    try:
        said = validity.measured(request, reply)
    except Exception as error:  # noqa: BLE001 - a check that raises fails closed: rule invalid
        said = {"invalid": f"it cannot be checked: {type(error).__name__}: {error!s:.200}"}
    return call.model_copy(update={"meta": call.meta | plain_json(said)}) if said else call


def _check_count(name: str, value: object, most: int | None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 0 or (most is not None and value > most):  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r:.40}; expected a number of tokens")


def _token(token: Token) -> Token:
    clean = valid_unicode(token.text)
    return token if clean == token.text else token.model_copy(update={"text": clean})


def _tool_call(call: ToolCall) -> ToolCall:
    clean = {name: valid_unicode(value) for name, value in call.model_dump().items()}
    return ToolCall(**clean)
