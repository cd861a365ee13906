"""What an OpenAI-compatible request may say.

Sampling settings (`temperature` and its like) are accepted, because clients send them unasked, and have no
effect: the graph decides how each model is asked. What would change the answer's meaning and is not
supported is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_CHOICES = 16
Text = Annotated[str, Field(max_length=1_000_000)]
Ignored = Any  # accepted and without effect


class Wire(BaseModel):
    """A part of a request that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(Wire):
    """A piece of a message's content."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: Text = ""
    refusal: Text | None = None
    annotations: Ignored = None
    logprobs: Ignored = None


class FunctionCall(Wire):
    """The function of a tool call; `arguments` is JSON text."""

    name: str = Field(max_length=256)
    arguments: Text


class ToolCallItem(Wire):
    """A tool call of an earlier answer."""

    id: str = Field(max_length=256)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Wire):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    name: str | None = None
    refusal: Text | None = None
    audio: None = None
    annotations: Ignored = None
    function_call: None = None
    tool_calls: list[ToolCallItem] | None = None
    tool_call_id: str | None = Field(None, max_length=256)


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


class Sampling(Wire):
    """Settings that are accepted without effect."""

    temperature: Ignored = None
    top_p: Ignored = None
    frequency_penalty: Ignored = None
    presence_penalty: Ignored = None
    seed: Ignored = None
    user: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    parallel_tool_calls: Ignored = None
    reasoning_effort: Ignored = None
    verbosity: Ignored = None
    max_tokens: Ignored = None
    max_completion_tokens: Ignored = None


class ChatBody(Sampling):
    """The body of POST /v1/chat/completions."""

    model: str = Field(max_length=256)
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[ToolItem] | None = Field(None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    metadata: dict[str, Any] | None = None
    cascade: Extension = Extension()


class InputItem(Wire):
    """An item of a response's input: a message, a function call, or a function's output."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    id: str | None = None
    status: Ignored = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Text | list[TextPart] | None = None
    phase: Ignored = None
    call_id: str | None = Field(None, max_length=256)
    name: str | None = Field(None, max_length=256)
    namespace: Ignored = None
    arguments: Text | None = None
    output: Text | list[TextPart] | None = None


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
    verbosity: Ignored = None


class ResponsesBody(Sampling):
    """The body of POST /v1/responses; what needs stored conversations is refused."""

    model: str = Field(max_length=256)
    input: Text | list[InputItem]
    instructions: Text | None = None
    stream: bool | None = None
    tools: list[FlatTool] | None = Field(None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    text: TextSettings | None = None
    metadata: dict[str, Any] | None = None
    max_output_tokens: Ignored = None
    reasoning: Ignored = None
    include: Ignored = None
    truncation: Ignored = None
    stream_options: Ignored = None
    top_logprobs: Ignored = None
    cascade: Extension = Extension()
