"""Traces without texts: whatever a user or a model wrote is replaced by its SHA-256 hash.

Everything that explains a decision stays: stages, models, rules, numbers, gate scores. Equal texts have equal
hashes, so it remains visible whether two stages agreed. A hash is not encryption: anyone who can guess a text
(such as one of a closed set of labels) can check the guess.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cascade.records import Call, Request, Result, Step, ToolCall

_MIN_QUOTE = 12  # characters shared with a private text that make a piece of a message a quotation
FINISH_REASONS = ("stop", "length", "tool_calls", "early_exit")


def redact(result: Result) -> Result:
    """Return `result` without any text that a user or a model wrote.

    The request, answers, label names and strings in a call's `meta` become `sha256:<hex>`. `metadata` and the
    thinking of models are dropped. So is the text of each token, because a vocabulary is small enough to look
    up every hash. Of an error stay its class and HTTP status, of an exception which one it was.
    """
    tools = frozenset(tool.name for tool in result.request.tools)
    called = [result.tool_calls, *(call.tool_calls for step in result.trace for call in step.calls)]
    written = [call.arguments for calls in called for call in calls]
    written += [call.text for step in result.trace for call in step.calls if call.role != "gate"]
    return result.model_copy(
        update={
            "text": hashed(result.text),
            "draft": hashed(result.draft),
            "question": hashed(result.question),
            "tool_calls": _tool_calls(result.tool_calls, tools),
            "request": _request(result.request, tools),
            "trace": tuple(_step(step, [text for text in written if text], tools) for step in result.trace),
        }
    )


def hashed(text: str | None) -> str | None:
    """Return `sha256:<hex>` of `text` as UTF-8; None and the empty text stay."""
    if not text:
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _request(request: Request, tools: frozenset[str]) -> Request:
    messages = tuple(
        message.model_copy(
            update={"content": hashed(message.content), "tool_calls": _tool_calls(message.tool_calls, tools)}
        )
        for message in request.messages
    )
    return request.model_copy(update={"text": hashed(request.text), "messages": messages, "metadata": {}})


def _tool_calls(calls: Iterable[ToolCall], tools: frozenset[str]) -> tuple[ToolCall, ...]:
    """Hash what the model wrote; the names of `tools` come from the application."""
    return tuple(
        call.model_copy(
            update={
                "name": call.name if call.name in tools else hashed(call.name),
                "arguments": hashed(call.arguments),
            }
        )
        for call in calls
    )


def _step(step: Step, written: Sequence[str], tools: frozenset[str]) -> Step:
    detail = step.decision.detail
    # Why an answer is invalid is in cascade's own words; other details are those of an exception.
    said = _unquote(detail, written) if step.decision.rule == "invalid" else _kind(detail)
    decision = step.decision.model_copy(update={"detail": said})
    calls = tuple(_call(call, tools) for call in step.calls)
    return step.model_copy(update={"decision": decision, "calls": calls})


def _call(call: Call, tools: frozenset[str]) -> Call:
    labels = call.labels and {hashed(name) or "": value for name, value in call.labels.items()}
    return call.model_copy(
        update={
            "text": hashed(call.text),
            "tool_calls": _tool_calls(call.tool_calls, tools),
            "labels": labels,
            "tokens": tuple(token.model_copy(update={"text": ""}) for token in call.tokens),
            "meta": _meta(call.meta),
            "error": _class(call.error, call.meta),
        }
    )


def _without_strings(value: Any) -> Any:
    if isinstance(value, str):
        return hashed(value)
    if isinstance(value, dict):
        return {key: _without_strings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_strings(item) for item in value]
    return value


def _class(error: str | None, meta: dict[str, Any]) -> str | None:
    """Return the class of a failed call, with the HTTP status if it has one; never what anybody wrote.

    Servers echo prompts in their errors, with other white space or quotes, so no part of a message stays.
    """
    if error is None:
        return None
    ended = "early_exit" if meta.get("finish_reason") == "early_exit" else "failed"
    named = [meta[key] for key in ("reason", "refused") if _is_name(meta.get(key))]
    status = meta.get("status")
    known = isinstance(status, int) and not isinstance(status, bool)
    return f"{(named or [ended])[0]}{f' (HTTP {status})' if known else ''}"


def _kind(detail: str | None) -> str | None:
    """Return of an exception's words only which one it was."""
    if detail is None:
        return None
    found = re.match(r"(?:deciding: )?[A-Za-z_][A-Za-z0-9_.]{0,63}(?=:)", detail)
    return found[0] if found else "withheld"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]{1,64}", value) is not None


def _meta(meta: dict[str, Any]) -> dict[str, Any]:
    """Return `meta` without texts; the id of a nested run and what cascade itself names are none."""
    kept = {key: value for key, value in meta.items() if key != "thinking"}
    ours = {
        key
        for key, value in kept.items()
        if key == "run" or (key in ("reason", "refused") and _is_name(value))
        or (key == "finish_reason" and value in FINISH_REASONS)
    }  # fmt: skip
    return {key: value if key in ours else _without_strings(value) for key, value in kept.items()}


def _unquote(message: str | None, private: Sequence[str]) -> str | None:
    """Cut quotations of `private` texts out of `message`, words of cascade about an answer."""
    if not message:
        return message
    for text in private:
        if len(text) < _MIN_QUOTE:
            message = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", "[…]", message)
    quoted = bytearray(len(message))
    for start in range(len(message) - _MIN_QUOTE + 1):
        if any(message[start : start + _MIN_QUOTE] in text for text in private):
            quoted[start : start + _MIN_QUOTE] = b"\1" * _MIN_QUOTE
    pieces = []
    for index, char in enumerate(message):
        if not quoted[index]:
            pieces.append(char)
        elif index == 0 or not quoted[index - 1]:
            pieces.append("[…]")
    return "".join(pieces)
