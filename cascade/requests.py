"""Building and checking requests: a text or a conversation, tools, the answer's schema, and their limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from pydantic import ValidationError

from cascade.errors import RequestError, first_problem
from cascade.formats.plain import json_problem
from cascade.formats.schemas import SchemaSize, schema_problem, schema_size
from cascade.records import MAX_TEXT_BYTES, Message, Request, Tool, check_text

MAX_MESSAGES = 1000
MAX_TOOLS = 128
MAX_TOOL_CALLS = 128  # in one message
MAX_ALL_TOOL_CALLS = 2000  # in one conversation
MAX_TOOLS_SIZE = SchemaSize(bytes=400_000, subschemas=10_000, patterns=200)  # of all tools' parameters
MAX_DESCRIPTIONS = 400_000  # bytes of all tools' descriptions
MAX_METADATA_BYTES = 65_536
MAX_METADATA_DEPTH = 16
MAX_NAME = 256  # characters of an account and of a tool call's id
_MAX_KEYS = 16  # of a message or a tool; the records have fewer
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TOOL_CHOICES = ("auto", "none", "required")

RequestInput = str | Sequence[Message | Mapping[str, Any]]


class RequestOptions(TypedDict, total=False):
    """Everything that a request can have besides its text or conversation.

    Attributes:
        tools: functions that a model may ask the application to call, at most 128.
        tool_choice: auto, none, required, or the name of the tool that must be called.
        output_schema: a JSON Schema; the answer is then JSON that satisfies it.
        local_only: call no model that is not local.
        account: the account whose budget pays.
        metadata: stored with the trace, never shown to a model.
    """

    tools: Sequence[Tool | Mapping[str, Any]]
    tool_choice: str
    output_schema: Mapping[str, Any] | None
    local_only: bool
    account: str | None
    metadata: Mapping[str, Any] | None


def build_request(
    input: RequestInput,  # noqa: A002 - as in `Cascade.invoke`
    options: RequestOptions | Mapping[str, Any] | None = None,
) -> Request:
    """Return the checked request for a text, or for a conversation whose last message is to be answered.

    Args:
        input: the text, or messages as `Message` records or mappings with their fields.
        options: everything besides the input.

    Raises:
        RequestError: see `check_request`.
    """
    fields: dict[str, Any] = {key: value for key, value in (options or {}).items() if value is not None}
    _check_counts(input, fields)
    if isinstance(input, str) or not isinstance(input, Sequence):
        fields["text"] = check_text(input)
    else:
        if not input:
            raise RequestError("messages is empty; give at least one user message")
        fields["messages"] = tuple(input)
        fields["text"] = ""
    fields["tools"] = tuple(fields.get("tools", ()))
    try:
        request = Request.model_validate(fields)
    except ValidationError as error:
        location, message = first_problem(error)
        raise RequestError(f"{location}: {message}; expected what cascade.records.Request holds") from None
    return check_request(request)


def build_each(inputs: Iterable[RequestInput], options: RequestOptions | Mapping[str, Any]) -> list[Request]:
    """Return the requests of a batch.

    Raises:
        RequestError: one of them is invalid; the message says which.
    """
    built = []
    for index, item in enumerate(inputs):
        try:
            built.append(build_request(item, options))
        except RequestError as error:
            raise RequestError(f"inputs[{index}]: {error}") from None
    return built


def _check_counts(input: object, fields: Mapping[str, Any]) -> None:  # noqa: A002
    """Refuse what is too much before pydantic looks at each part of it."""
    calls = 0
    for name, items, most in (("messages", input, MAX_MESSAGES), ("tools", fields.get("tools"), MAX_TOOLS)):
        if isinstance(items, str) or not isinstance(items, Sequence):
            continue
        if len(items) > most:
            raise RequestError(f"{name} holds {len(items)}; at most {most} are taken; shorten it")
        for index, item in enumerate(items):
            if isinstance(item, Mapping):
                calls += _count_calls(f"{name}[{index}]", item)
    _check_calls(calls)
    _check_metadata(fields.get("metadata", {}))


def _count_calls(location: str, item: Mapping[str, Any]) -> int:
    if len(item) > _MAX_KEYS:
        raise RequestError(f"{location} has {len(item)} keys; at most {_MAX_KEYS} are known")
    calls = item.get("tool_calls")
    count = len(calls) if isinstance(calls, Sequence) else 0
    if count > MAX_TOOL_CALLS:
        raise RequestError(f"{location} has {count} tool_calls; at most {MAX_TOOL_CALLS} are taken")
    return count


def _check_calls(calls: int) -> None:
    if calls > MAX_ALL_TOOL_CALLS:
        raise RequestError(f"messages hold {calls} tool_calls; at most {MAX_ALL_TOOL_CALLS} are taken")


def _check_metadata(metadata: object) -> None:
    given = dict(metadata) if isinstance(metadata, Mapping) else metadata
    problem = json_problem(given, max_bytes=MAX_METADATA_BYTES, max_depth=MAX_METADATA_DEPTH)
    if problem is not None:
        raise RequestError(f"metadata {problem}")


def check_request(request: Request) -> Request:
    """Return `request` if models can answer it; `text` becomes the last user message of a conversation.

    Raises:
        RequestError: a text is blank, too long or not text; the conversation does not end with a user or
            tool message, or a tool message answers no call; a tool has a bad name; a schema is unsupported;
            there is too much of something (the limits at the head of this module).
    """
    if request.messages:
        request = request.model_copy(update={"text": _last_user(request.messages)})
        _check_messages(request.messages)
    check_text(request.text)
    if request.account is not None and not 0 < len(request.account) <= MAX_NAME:
        raise RequestError(f"account has {len(request.account)} characters; expected 1 to {MAX_NAME}")
    _check_metadata(request.metadata)
    _check_tools(request)
    if request.output_schema is not None:
        problem = schema_problem(request.output_schema)
        if problem is not None:
            raise RequestError(f"output_schema {problem}")
    return request


def parameters_of(tool: Tool) -> dict[str, Any]:
    """Return the JSON Schema of the tool's arguments, which are always an object."""
    return {**tool.parameters, "type": "object"}


def _last_user(messages: Sequence[Message]) -> str:
    texts = [message.content for message in messages if message.role == "user"]
    if not texts:
        raise RequestError("messages holds no user message; add what the user asks")
    return texts[-1]


def _check_messages(messages: Sequence[Message]) -> None:
    if len(messages) > MAX_MESSAGES:
        raise RequestError(f"messages holds {len(messages)}; at most {MAX_MESSAGES} are taken; shorten it")
    if messages[-1].role not in ("user", "tool"):
        raise RequestError(
            f"the last message has role {messages[-1].role!r}; expected user or tool, which can be answered"
        )
    _check_calls(sum(len(message.tool_calls) for message in messages))
    known: set[str] = set()
    size = 0
    for index, message in enumerate(messages):
        size += _check_message(f"messages[{index}]", message, known)
        known.update(call.id for call in message.tool_calls)
    if size > MAX_TEXT_BYTES:
        raise RequestError(
            f"messages have {size} bytes; a request takes at most {MAX_TEXT_BYTES}; shorten it"
        )


def _check_message(location: str, message: Message, known: set[str]) -> int:
    """Return the size of `message` in bytes; `known` holds the ids of earlier tool calls."""
    if len(message.tool_calls) > MAX_TOOL_CALLS:
        raise RequestError(
            f"{location} has {len(message.tool_calls)} tool_calls; at most {MAX_TOOL_CALLS} are taken"
        )
    ids = [call.id for call in message.tool_calls]
    if any(len(id_) > MAX_NAME for id_ in ids):
        raise RequestError(f"{location} has a tool call whose id is longer than {MAX_NAME} characters")
    parts = [message.content, *ids]
    parts += [part for call in message.tool_calls for part in (call.name, call.arguments)]
    try:
        size = sum(len(part.encode()) for part in parts)
        for part in filter(str.strip, parts):
            check_text(part)
        if message.role == "user":
            check_text(message.content)
    except (RequestError, UnicodeEncodeError) as error:
        raise RequestError(f"{location}: {error}") from None
    if message.tool_calls and message.role != "assistant":
        raise RequestError(
            f"{location} has tool_calls and role {message.role!r}; only an assistant calls tools"
        )
    if message.role == "tool" and message.tool_call_id not in known:
        raise RequestError(
            f"{location} answers tool call {message.tool_call_id!r:.80}; "
            "expected tool_call_id of a call that an earlier message makes"
        )
    if message.role != "tool" and message.tool_call_id is not None:
        raise RequestError(
            f"{location} has a tool_call_id and role {message.role!r}; only a tool answers a call"
        )
    return size


def _check_tools(request: Request) -> None:
    tools, choice = request.tools, request.tool_choice
    if len(tools) > MAX_TOOLS:
        raise RequestError(f"tools holds {len(tools)}; at most {MAX_TOOLS} are taken")
    names = [tool.name for tool in tools]
    total, described = SchemaSize(0, 0, 0), 0
    for index, tool in enumerate(tools):
        _check_tool(f"tools[{index}]", tool, names[:index])
        described += len(tool.description.encode())
        total = SchemaSize(*map(sum, zip(total, schema_size(tool.parameters), strict=True)))
        for what, size, most in zip(total._fields, total, MAX_TOOLS_SIZE, strict=True):
            if size > most:
                raise RequestError(f"the tools' parameters have more than {most} {what}; give fewer tools")
    if described > MAX_DESCRIPTIONS:
        raise RequestError(
            f"the tools' descriptions have {described} bytes; at most {MAX_DESCRIPTIONS} are taken"
        )
    if choice not in TOOL_CHOICES and choice not in names:
        known = ", ".join([*TOOL_CHOICES, *names[:20]])
        raise RequestError(f"tool_choice is {choice!r:.80}; known: {known}")
    if choice == "required" and not tools:
        raise RequestError("tool_choice is 'required' and there are no tools; give some, or auto")


def _check_tool(location: str, tool: Tool, before: Sequence[str]) -> None:
    if not TOOL_NAME.fullmatch(tool.name):
        raise RequestError(f"{location}.name is {tool.name!r:.80}; expected 1 to 64 letters, digits, _ or -")
    if tool.name in before:
        raise RequestError(f"{location}.name {tool.name!r} is given twice; names must differ")
    problem = schema_problem(tool.parameters)
    if problem is not None:
        raise RequestError(f"{location}.parameters {problem}")
    if tool.description.strip():
        check_text(tool.description)
