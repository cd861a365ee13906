"""Conversion from LangChain's messages, and from a result to LangChain's answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata

from cascade.errors import RequestError
from cascade.openai_fields import cut
from cascade.policy.result import finish_reason
from cascade.records import Message, Result, Speaker, Step, Tool, ToolCall

# Blocks of an assistant's message that `tool_calls` repeats, or that are meant for one model only.
_PASSED_OVER = frozenset({
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "reasoning", "thinking",
    "redacted_thinking",
})  # fmt: skip


def from_langchain(messages: Iterable[BaseMessage]) -> list[Message]:
    """Return the conversation, without the speakers' names.

    Raises:
        RequestError: a message holds more than text, or has an unknown role.
    """
    return [_message(f"messages[{index}]", message) for index, message in enumerate(messages)]


def _message(location: str, message: BaseMessage) -> Message:
    text = _text(location, message.content, assistant=isinstance(message, AIMessage))
    if isinstance(message, AIMessage):
        return Message(role="assistant", content=text, tool_calls=_calls(message))
    if isinstance(message, ToolMessage):
        return Message(role="tool", content=text, tool_call_id=message.tool_call_id)
    roles: dict[str, Speaker] = {"system": "system", "developer": "system", "user": "user", "human": "user",
                                 "assistant": "assistant", "ai": "assistant"}  # fmt: skip
    role: str = message.role if isinstance(message, ChatMessage) else message.type
    if isinstance(message, SystemMessage | HumanMessage | ChatMessage) and role in roles:
        return Message(role=roles[role], content=text)
    raise RequestError(
        f"{location} is a {type(message).__name__} of role {role!r}; expected system, human, AI or tool"
    )


def _text(location: str, content: str | Sequence[Any], *, assistant: bool) -> str:
    if isinstance(content, str):
        return content
    parts = []
    for block in content:
        kind = "text" if isinstance(block, str) else str(block.get("type"))
        if kind == "text":
            parts.append(block if isinstance(block, str) else str(block.get("text", "")))
        elif not (assistant and kind in _PASSED_OVER):
            raise RequestError(
                f"{location} holds a block of type {kind!r}; a cascade takes text only: "
                "describe it in words, or send it to another model"
            )
    return "".join(parts)


def _calls(message: AIMessage) -> tuple[ToolCall, ...]:
    made = [(call["id"], call["name"], json.dumps(call["args"])) for call in message.tool_calls]
    broken = [(call["id"], call["name"], call["args"] or "") for call in message.invalid_tool_calls]
    return tuple(
        ToolCall(id=name or f"call_{index}", name=called or "", arguments=arguments)
        for index, (name, called, arguments) in enumerate([*made, *broken])
    )


def tool_from_openai(tool: Tool | Mapping[str, Any]) -> Tool:
    """Return the tool that `{"type": "function", "function": …}` defines.

    Raises:
        RequestError: it has another shape (a provider's own tool, for instance).
    """
    if isinstance(tool, Tool):
        return tool
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping):
        raise RequestError(
            f"tool {str(tool)[:80]!r} is no function; a cascade takes functions, which your program executes"
        )
    return Tool(
        name=str(function.get("name", "")),
        description=str(function.get("description") or ""),
        parameters=dict(function.get("parameters") or {}),
    )


def answer_of(result: Result, stops: Sequence[str] | None = None) -> AIMessage:
    """Return the answer as a LangChain message; `content` is empty if there is none."""
    return AIMessage(
        content=cut(result.text or "", stops),
        tool_calls=[
            {"name": call.name, "args": json.loads(call.arguments.strip() or "{}"), "id": call.id}
            for call in result.tool_calls
        ],
        usage_metadata=usage_of(result),
        response_metadata=metadata_of(result),
    )


def usage_of(result: Result) -> UsageMetadata:
    """Return the tokens of all calls of the run, gates and rejected drafts included."""
    calls = [call for step in result.trace for call in step.calls]
    tokens_in, tokens_out = sum(call.tokens_in for call in calls), sum(call.tokens_out for call in calls)
    return UsageMetadata(
        input_tokens=tokens_in, output_tokens=tokens_out, total_tokens=tokens_in + tokens_out
    )


def metadata_of(result: Result) -> dict[str, Any]:
    """Return the `response_metadata`; `cascade` holds the run's id, its decisions and their rules."""
    return {
        "model_name": result.graph,
        "model_provider": "cascade",
        "finish_reason": "abstain" if result.text is None else finish_reason(result),
        "cascade": {
            "run": result.run,
            "status": result.status,
            "rule": result.rule,
            "stage": result.stage,
            "tier": result.tier,
            "model": result.model,
            "confidence": result.confidence,
            "calibrated": result.calibrated,
            "cost_usd": result.cost_usd,
            "seconds": result.seconds,
            "steps": [_step(step) for step in result.trace],
        },
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "action": step.decision.action,
        "rule": step.decision.rule,
        "models": [call.model for call in step.calls],
        "confidence": step.estimate.confidence if step.estimate is not None else None,
    }
