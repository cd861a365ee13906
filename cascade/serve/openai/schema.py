"""What an OpenAI-compatible request may say.

What means nothing here (`cascade.openai_fields`: null, empty, sampling settings, what an SDK adds to
messages) is left out before a body is read; any other field that these models do not have is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cascade.openai_fields import (
    IGNORED_SETTINGS,
    clean_item,
    clean_members,
    clean_message,
    clean_settings,
)
from cascade.requests import MAX_MESSAGES, MAX_TOOL_CALLS, MAX_TOOLS

MAX_CHOICES = 16
MAX_ITEMS = 4 * MAX_MESSAGES  # of the Responses API: thoughts and calls are items of their own
_MOST_UNKNOWN = 8  # fields of a value that are named in an error
Stop = Annotated[str, Field(max_length=1000)]
Text = Annotated[str, Field(max_length=1_000_000)]


class Wire(BaseModel):
    """A part of a request; a field that it does not have and that means something is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, value: Any) -> Any:
        """Leave out what means nothing here; of unknown fields, some are enough for an error."""
        if not isinstance(value, Mapping):
            return value
        cleaned, known = cls._clean(value), cls._known()
        unknown = islice((name for name in cleaned if name not in known), _MOST_UNKNOWN)
        return {name: cleaned[name] for name in (*(known & cleaned.keys()), *unknown)}

    @classmethod
    def _clean(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        return clean_members(value, cls._known())

    @classmethod
    def _known(cls) -> set[str]:
        return {field.alias or name for name, field in cls.model_fields.items()}


class TextPart(Wire):
    """A piece of a message's content."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: Text = ""
    refusal: Text | None = None


Parts = Annotated[list[TextPart], Field(max_length=1000, fail_fast=True)]


class FunctionCall(Wire):
    """The function of a tool call; `arguments` is JSON text."""

    name: str = Field(max_length=256)
    arguments: Text = ""


class ToolCallItem(Wire):
    """A tool call of an earlier answer."""

    id: str = Field(max_length=256)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Wire):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Parts | None = None
    refusal: Text | None = None
    tool_calls: list[ToolCallItem] | None = Field(None, max_length=MAX_TOOL_CALLS, fail_fast=True)
    tool_call_id: str | None = Field(None, max_length=256)

    @classmethod
    def _clean(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        return clean_message(value)


class Function(Wire):
    """A function that may be called; `parameters` is a JSON Schema."""

    name: str = Field(max_length=256)
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolItem(Wire):
    """A tool; only functions are supported."""

    type: Literal["function"]
    function: Function


class NamedFunction(Wire):
    """The name of a function to call."""

    name: str


class NamedTool(Wire):
    """Demands the call of one function."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Wire):
    """A schema that the answer must satisfy."""

    name: str
    description: Text | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(Wire):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Wire):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Extension(Wire):
    """This server's own field, `cascade`: what OpenAI's API has no word for."""

    local_only: bool = False


def _with_ignored(schema: dict[str, Any]) -> None:
    """Add what is accepted without effect to a description."""
    for name in sorted(IGNORED_SETTINGS - set(schema["properties"])):
        schema["properties"][name] = {"description": "Accepted; has no effect here."}


class Body(Wire):
    """A whole request."""

    model_config = ConfigDict(json_schema_extra=_with_ignored)

    model: str = Field(max_length=256)
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
    cascade: Extension = Extension()

    @classmethod
    def _clean(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        return clean_settings(value, cls._known())


class ChatBody(Body):
    """The body of POST /v1/chat/completions; the answer ends before the first of `stop`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stop: Stop | Annotated[list[Stop], Field(max_length=64)] | None = None
    stream_options: StreamOptions | None = None
    tools: list[ToolItem] | None = Field(None, max_length=MAX_TOOLS, fail_fast=True)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)


class InputItem(Wire):
    """An item of a response's input: a message, a function call, or a function's output.

    A model's thoughts, and additional tools of which there are none, say nothing here.
    """

    type: Literal["message", "function_call", "function_call_output", "reasoning", "additional_tools"] = (
        "message"
    )
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Text | Parts | None = None
    call_id: str | None = Field(None, max_length=256)
    name: str | None = Field(None, max_length=256)
    arguments: Text | None = None
    output: Text | Parts | None = None

    @classmethod
    def _clean(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        return clean_item(value)


class FlatTool(Wire):
    """A function as /v1/responses writes it."""

    type: Literal["function"]
    name: str = Field(max_length=256)
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FlatChoice(Wire):
    """Demands the call of one function, as /v1/responses writes it."""

    type: Literal["function"]
    name: str


class TextFormat(Wire):
    """The form of the answer, as /v1/responses writes it."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: Text | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextSettings(Wire):
    """The `text` of a response request."""

    format: TextFormat | None = None

    @classmethod
    def _clean(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        return clean_settings(value, cls._known())


LOGPROBS = "message.output_text.logprobs"  # of `include`


class ResponsesBody(Body):
    """The body of POST /v1/responses; what needs stored conversations is refused."""

    input: Text | Annotated[list[InputItem], Field(max_length=MAX_ITEMS, fail_fast=True)]
    include: list[str] | None = Field(None, max_length=64, fail_fast=True)
    instructions: Text | None = None
    tools: list[FlatTool] | None = Field(None, max_length=MAX_TOOLS, fail_fast=True)
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    text: TextSettings | None = None
