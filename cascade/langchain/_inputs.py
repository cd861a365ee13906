"""Inputs of `Cascade.invoke` in the shapes that LangChain and OpenAI's clients use, as records.

Texts and records pass through without importing LangChain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from cascade.errors import RequestError
from cascade.openai_fields import clean_message
from cascade.records import Message, Speaker, Tool
from cascade.requests import RequestInput

# What OpenAI's shape of a tool or of a tool call has, and the records do not.
_FUNCTION = "function"


def plain_input(input: Any) -> RequestInput:  # noqa: A002 - as in `Cascade.invoke`
    """Return a text, or messages as records or mappings with their fields.

    Args:
        input: these, LangChain's messages or prompt, `(role, text)` pairs, or messages in OpenAI's shape.

    Raises:
        RequestError: a message has another shape, or holds more than text.
    """
    if hasattr(input, "to_messages"):  # a prompt that a LangChain template filled in
        input = input.to_messages()  # noqa: A001
    if isinstance(input, str) or not isinstance(input, Sequence) or all(map(_is_record, input)):
        return input  # type: ignore[no-any-return]
    return [
        message if _is_record(message) else _converted(index, message) for index, message in enumerate(input)
    ]


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a request with its tools, and the choice among them, as records.

    Raises:
        RequestError: a tool is no function.
    """
    plain = dict(options)
    tools, choice = options.get("tools"), options.get("tool_choice")
    if isinstance(tools, Sequence) and not isinstance(tools, str):
        plain["tools"] = [_tool(tool) for tool in tools]
    if isinstance(choice, Mapping):
        chosen = choice.get(_FUNCTION)
        plain["tool_choice"] = str(chosen.get("name") if isinstance(chosen, Mapping) else choice.get("name"))
    return plain


def _is_record(message: Any) -> bool:
    """Return whether `message` is a record or has its fields; only the others need LangChain."""
    if not isinstance(message, Mapping):
        return isinstance(message, Message)
    calls = message.get("tool_calls", ())
    foreign = isinstance(calls, Sequence) and any(isinstance(c, Mapping) and _FUNCTION in c for c in calls)
    known = set(message) <= set(Message.model_fields) and message.get("role") in get_args(Speaker)
    return known and isinstance(message.get("content", ""), str) and calls is not None and not foreign


def _converted(index: int, message: Any) -> Message:
    from langchain_core.messages import convert_to_messages

    from cascade.langchain._messages import from_langchain

    if isinstance(message, Mapping):
        message = {"content": ""} | clean_message(message)
    try:
        converted = convert_to_messages([message])
    except (NotImplementedError, ValueError, TypeError, KeyError, AttributeError) as error:
        shown = f"{type(message).__name__} {message!r:.80}"
        raise RequestError(
            f"messages[{index}] is a {shown}, which is no message ({str(error).splitlines()[0]:.80}); "
            "expected a cascade.Message, a LangChain message, or a mapping with role and content"
        ) from None
    try:
        return from_langchain(converted)[0]
    except RequestError as error:
        raise RequestError(str(error).replace("messages[0]", f"messages[{index}]", 1)) from None


def _tool(tool: Any) -> Any:
    if isinstance(tool, Tool) or (isinstance(tool, Mapping) and _FUNCTION not in tool and "name" in tool):
        return tool
    from cascade.langchain._messages import tool_from_openai

    if isinstance(tool, Mapping):
        return tool_from_openai(tool)
    from langchain_core.utils.function_calling import convert_to_openai_tool

    try:
        return tool_from_openai(convert_to_openai_tool(tool))
    except (ValueError, TypeError) as error:
        raise RequestError(
            f"tool {tool!r:.80} is no function ({str(error).splitlines()[0]:.80}); give a cascade.Tool, "
            "a LangChain tool, a function with a docstring, or a definition in OpenAI's shape"
        ) from None
