"""What a chat-completions endpoint is sent: messages, tools, and the shape of the answer."""

from __future__ import annotations

from typing import Any

from cascade.models.base import Prompt
from cascade.records import Message
from cascade.requests import TOOL_CHOICES, TOOL_NAME, parameters_of


def wire_message(message: Message) -> dict[str, Any]:
    """Return `message` as an endpoint takes it."""
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return body


def wire_tools(prompt: Prompt) -> dict[str, Any]:
    """Return the fields that ask for tool calls and for JSON, as an endpoint takes them."""
    body: dict[str, Any] = {}
    if prompt.tools:
        choice: Any = prompt.tool_choice
        if choice not in TOOL_CHOICES:
            choice = {"type": "function", "function": {"name": choice}}
        functions = [tool.model_dump() | {"parameters": parameters_of(tool)} for tool in prompt.tools]
        body["tools"] = [{"type": "function", "function": function} for function in functions]
        body["tool_choice"] = choice
    if prompt.output_schema is not None:
        title = str(prompt.output_schema.get("title", ""))
        name = title if TOOL_NAME.fullmatch(title) else "answer"
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": name, "schema": prompt.output_schema},
        }
    return body
