"""From the body of a request to what it asks, checked. The largest and worst bodies are read by `checks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cascade.errors import RequestError, first_problem
from cascade.openai_fields import REFUSED
from cascade.records import Message, Record, Request, Speaker, Tool, ToolCall
from cascade.requests import check_request
from cascade.serve.openai.schema import (
    LOGPROBS,
    Body,
    ChatBody,
    ChatMessage,
    FlatChoice,
    InputItem,
    NamedTool,
    ResponsesBody,
    TextPart,
)

Api = Literal["chat", "responses"]
Schema = dict[str, Any]
_UNKNOWN = 'unknown field; remove it (what is cascade\'s own goes into "cascade": {"local_only": …})'


class Asked(Record):
    """What a request asks: of a graph, by `request`, and in which form it wants the answer.

    `echo` is what a response of the Responses API repeats of its request.
    """

    model: str
    request: Request
    stream: bool = False
    n: int = 1
    stops: tuple[str, ...] = ()
    logprobs: bool = False
    include_usage: bool = False
    echo: dict[str, Any] = Field(default_factory=dict)


class UnreadableError(Exception):
    """A body that is no request, for which the client is to blame.

    Attributes:
        param: the field at fault.
        code: a word for programs.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        self.param, self.code = param, code
        super().__init__(message)


class PersonsAnswer(BaseModel):
    """The body of a person's answer to a waiting run."""

    model_config = ConfigDict(extra="forbid", strict=True)

    answer: str


def read_answer(data: bytes) -> str:
    """Return what a person answers.

    Raises:
        UnreadableError: the body is no answer.
    """
    try:
        return PersonsAnswer.model_validate_json(data).answer
    except ValidationError as error:
        where, message = first_problem(error)
        where = where[:200] or "body"
        raise UnreadableError(f"{where}: {message}", where) from None


def read(api: Api, data: bytes) -> Asked:
    """Return what a body asks.

    Raises:
        UnreadableError: it is not JSON, not what `api` takes, or no request that a model can answer.
    """
    asked = read_form(api, data)
    try:
        return asked.model_copy(update={"request": check_request(asked.request)})
    except RequestError as error:
        raise UnreadableError(str(error), code="invalid_request") from error


def read_form(api: Api, data: bytes) -> Asked:
    """Return what a body asks, whose request is not checked yet.

    Raises:
        UnreadableError: it is not JSON, or not what `api` takes.
    """
    try:
        if api == "chat":
            return _chat(ChatBody.model_validate_json(data))
        return _responses(ResponsesBody.model_validate_json(data))
    except ValidationError as error:
        # If a value may have several forms, the deepest error belongs to the form that was meant.
        deepest = max(error.errors(include_url=False, include_input=False), key=lambda e: len(e["loc"]))
        where = ".".join(str(part) for part in deepest["loc"] if not _is_form(part))[:200]
        message = deepest["msg"]
        if deepest["type"] == "extra_forbidden":
            message = REFUSED.get(str(deepest["loc"][-1]), _UNKNOWN)
        raise UnreadableError(f"{where or 'body'}: {message}", where or None) from None


def _is_form(part: int | str) -> bool:
    """Return whether a part of an error's location names an alternative of a union, not a key."""
    return isinstance(part, str) and not part.isidentifier()


def _chat(body: ChatBody) -> Asked:
    given = (body.stop,) if isinstance(body.stop, str) else body.stop or ()
    return Asked(
        model=body.model,
        request=chat_request(body),
        stream=bool(body.stream),
        n=body.n or 1,
        stops=tuple(filter(None, given)),
        logprobs=bool(body.logprobs),
        include_usage=body.stream_options is not None and body.stream_options.include_usage,
    )


def _responses(body: ResponsesBody) -> Asked:
    choice = body.tool_choice
    return Asked(
        model=body.model,
        request=responses_request(body),
        stream=bool(body.stream),
        logprobs=LOGPROBS in (body.include or ()),
        echo={
            "instructions": body.instructions,
            "metadata": body.metadata or {},
            "tool_choice": choice if choice is None or isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump() for tool in body.tools or ()],
        },
    )


def chat_request(body: ChatBody) -> Request:
    """Return the request that a chat completion asks."""
    messages = tuple(_message(message) for message in body.messages)
    tools = [
        Tool(name=f.name, description=f.description or "", parameters=f.parameters or {})
        for f in (tool.function for tool in body.tools or ())
    ]
    choice = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else body.tool_choice
    form = body.response_format
    given = form.json_schema.schema_ if form is not None and form.json_schema is not None else None
    schema = None if form is None else _schema(form.type, given)
    return _request(messages, tools, choice, schema, body)


def responses_request(body: ResponsesBody) -> Request:
    """Return the request that POST /v1/responses asks."""
    messages: list[Message] = []
    if body.instructions:
        messages.append(Message(role="system", content=body.instructions))
    if isinstance(body.input, str):
        messages.append(Message(role="user", content=body.input))
    else:
        messages += _items(body.input)
    tools = [
        Tool(name=tool.name, description=tool.description or "", parameters=tool.parameters or {})
        for tool in body.tools or ()
    ]
    choice = body.tool_choice.name if isinstance(body.tool_choice, FlatChoice) else body.tool_choice
    form = body.text.format if body.text is not None else None
    schema = None if form is None else _schema(form.type, form.schema_)
    return _request(messages, tools, choice, schema, body)


def _request(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    choice: str | None,
    schema: Schema | None,
    body: Body,
) -> Request:
    """Return the request; a single user message becomes plain text, which every model accepts."""
    last = next((message.content for message in reversed(messages) if message.role == "user"), "")
    plain = len(messages) == 1 and messages[0].role == "user"
    return Request(
        text=last,
        messages=() if plain else tuple(messages),
        tools=tuple(tools),
        tool_choice=choice or "auto",
        output_schema=schema,
        local_only=body.cascade.local_only,
        metadata=body.metadata or {},
    )


def _schema(kind: str, schema: Schema | None) -> Schema | None:
    if kind == "json_object":
        return {"type": "object"}
    return (schema if schema is not None else {}) if kind == "json_schema" else None


def _message(message: ChatMessage) -> Message:
    role: Speaker = "system" if message.role == "developer" else message.role
    calls = [
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in message.tool_calls or ()
    ]
    return Message(
        role=role,
        content=_content(message.content) or message.refusal or "",
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id,
    )


def _items(items: Iterable[InputItem]) -> list[Message]:
    """Return messages; adjacent function calls are merged into one assistant message."""
    messages: list[Message] = []
    for index, item in enumerate(items):
        if item.type in ("reasoning", "additional_tools"):
            continue
        if item.type == "message":
            if item.role is None:
                raise UnreadableError(f"input[{index}] has no role", f"input[{index}].role")
            role: Speaker = "system" if item.role == "developer" else item.role
            messages.append(Message(role=role, content=_content(item.content)))
        elif item.call_id is None:
            raise UnreadableError(f"input[{index}] has no call_id", f"input[{index}].call_id")
        elif item.type == "function_call_output":
            messages.append(Message(role="tool", content=_content(item.output), tool_call_id=item.call_id))
        else:
            call = ToolCall(id=item.call_id, name=item.name or "", arguments=item.arguments or "")
            earlier = (
                messages.pop() if messages and messages[-1].role == "assistant" else Message(role="assistant")
            )
            messages.append(earlier.model_copy(update={"tool_calls": (*earlier.tool_calls, call)}))
    return messages


def _content(content: str | Sequence[TextPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.refusal if part.refusal is not None else part.text for part in content)
