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

from cascade.records import Call, Request, Result, Step, ToolCall, UnavailableModel

_MIN_QUOTE = 12  # characters shared with a private text that make a piece of a message a quotation


def redact(result: Result) -> Result:
    """Return `result` without any text that a user or a model wrote.

    The request, answers, label names and strings in a call's `meta` become `sha256:<hex>`. `metadata` and the
    thinking of models are dropped. So is the text of each token, because a vocabulary is small enough to look
    up every hash. Error messages and details lose what they quote from the request or an answer.
    """
    answers = [call.text for step in result.trace for call in step.calls if call.role == "answer"]
    messages = result.request.messages
    tools = frozenset(tool.name for tool in result.request.tools)
    texts = [message.content for message in messages]
    requested = [message.tool_calls for message in messages]
    requested += [result.tool_calls, *(call.tool_calls for step in result.trace for call in step.calls)]
    texts += [call.arguments for calls in requested for call in calls]
    private = [
        text
        for text in (result.request.text, *texts, result.text, result.draft, result.question, *answers)
        if text
    ]
    return result.model_copy(
        update={
            "text": hashed(result.text),
            "draft": hashed(result.draft),
            "question": hashed(result.question),
            "tool_calls": _tool_calls(result.tool_calls, tools),
            "request": _request(result.request, tools),
            "trace": tuple(_step(step, private, tools) for step in result.trace),
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


def _step(step: Step, private: Sequence[str], tools: frozenset[str]) -> Step:
    facts = tuple(
        fact.model_copy(update={"reason": _unquote(fact.reason, private)})
        if isinstance(fact, UnavailableModel)
        else fact
        for fact in step.decision.facts
    )
    detail = _unquote(step.decision.detail, private)
    decision = step.decision.model_copy(update={"facts": facts, "detail": detail})
    calls = tuple(_call(call, private, tools) for call in step.calls)
    return step.model_copy(update={"decision": decision, "calls": calls})


def _call(call: Call, private: Sequence[str], tools: frozenset[str]) -> Call:
    labels = call.labels and {hashed(name) or "": value for name, value in call.labels.items()}
    return call.model_copy(
        update={
            "text": hashed(call.text),
            "tool_calls": _tool_calls(call.tool_calls, tools),
            "labels": labels,
            "tokens": tuple(token.model_copy(update={"text": ""}) for token in call.tokens),
            # `run` is the id of a nested cascade's run, not a text.
            "meta": {
                k: v if k == "run" else _without_strings(v) for k, v in call.meta.items() if k != "thinking"
            },
            "error": _unquote(call.error, private),
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


def _unquote(message: str | None, private: Sequence[str]) -> str | None:
    """Cut quotations of `private` texts out of `message`: servers echo prompts in their errors."""
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
