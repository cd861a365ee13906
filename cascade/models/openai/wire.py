"""What a chat-completions endpoint sends back, read strictly and folded into one answer.

The openai package builds its objects without checking them, so a wrong server would surface as an
`AttributeError` somewhere later. What an answer cannot do without (choices, text) is checked here and
raises `ValueError`; what it can do without (usage, log-probabilities) is dropped where it is malformed:
a missing signal is missing, never guessed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cascade.models.base import Prompt
from cascade.records import Message, Token, ToolCall
from cascade.requests import TOOL_CHOICES, TOOL_NAME, parameters_of

# Servers round log-probabilities, so the sum over a complete distribution misses one by a little.
_ROUNDING = 1e-6


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Function(_Wire):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None  # some servers send the object instead of its text


class _ToolCall(_Wire):
    index: int | None = None
    id: str | None = None
    function: _Function = _Function()


class _Text(_Wire):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(_Wire):
    message: _Text = _Text()
    delta: _Text = _Text()
    finish_reason: str | None = None
    logprobs: Any = None


class Completion(_Wire):
    """A whole answer, or one piece of a streamed one (`delta` instead of `message`)."""

    choices: list[_Choice]
    model: str | None = None
    usage: Any = None


class _Usage(_Wire):
    # A prompt and an answer have at least one token each; some servers report zeros for "not counted".
    prompt_tokens: int = Field(ge=1, lt=2**53)
    completion_tokens: int = Field(ge=1, lt=2**53)


Logprob = Annotated[float, Field(le=_ROUNDING, allow_inf_nan=False)]


class _Top(_Wire):
    logprob: Logprob


class _Piece(_Wire):
    token: str
    logprob: Logprob
    top_logprobs: list[_Top] = []


class _Logprobs(_Wire):
    content: list[_Piece] | None = None


_PIECES = TypeAdapter(_Logprobs | None)


@dataclass
class WireAnswer:
    """One completion, or all pieces of a streamed one, put together."""

    text: str = ""
    refusal: str = ""
    finish_reason: str | None = None
    model: str | None = None
    usage: tuple[int, int] | None = None
    tokens: list[Token] = field(default_factory=list)
    evidence_broken: bool = False
    calls: dict[int, list[str]] = field(default_factory=dict)

    def add(self, piece: Completion) -> str:
        """Add `piece` and return the text that is new."""
        self.model = piece.model or self.model
        self.usage = _usage(piece.usage) or self.usage
        if not piece.choices:  # the last piece of a stream carries the usage only
            return ""
        choice = piece.choices[0]
        self.finish_reason = choice.finish_reason or self.finish_reason
        self.refusal += (choice.message.refusal or "") + (choice.delta.refusal or "")
        try:
            self.tokens += _tokens(choice.logprobs)
        except ValidationError:
            self.evidence_broken = True
        for calls in (choice.message.tool_calls, choice.delta.tool_calls):
            for position, call in enumerate(calls or ()):
                self._add_call(position if call.index is None else call.index, call)
        new = (choice.message.content or "") + (choice.delta.content or "")
        self.text += new
        return new

    def _add_call(self, position: int, call: _ToolCall) -> None:
        """Add a call, or the next piece of its name and arguments."""
        parts = self.calls.setdefault(position, ["", "", ""])
        arguments = call.function.arguments
        written = json.dumps(arguments) if isinstance(arguments, dict) else arguments
        parts[0] = parts[0] or call.id or ""
        parts[1] += call.function.name or ""
        parts[2] += written or ""

    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Return the calls in order; missing and duplicate ids are replaced."""
        calls_by_id: dict[str, ToolCall] = {}
        for position in sorted(self.calls):
            name, call = self.calls[position][0], self.calls[position]
            name = name if name and name not in calls_by_id else f"call_{len(calls_by_id)}_{position}"
            calls_by_id[name] = ToolCall(id=name, name=call[1], arguments=call[2])
        return tuple(calls_by_id.values())

    def evidence(self) -> tuple[Token, ...]:
        """Return the statistics of all tokens, or nothing if those of any one are malformed."""
        return () if self.evidence_broken else tuple(self.tokens)


def _usage(raw: Any) -> tuple[int, int] | None:
    try:
        usage = _Usage.model_validate(raw)
    except ValidationError:
        return None
    return usage.prompt_tokens, usage.completion_tokens


def _tokens(raw: Any) -> list[Token]:
    read = _PIECES.validate_python(raw)
    return [_token(piece) for piece in (read.content or [] if read else [])]


def _token(piece: _Piece) -> Token:
    """Return the token with its margin, and its entropy where the top list is the whole distribution."""
    top = sorted((min(0.0, entry.logprob) for entry in piece.top_logprobs), reverse=True)
    covered = abs(sum(map(math.exp, top)) - 1.0) <= _ROUNDING
    return Token(
        text=piece.token,
        logprob=min(0.0, piece.logprob),
        margin=top[0] - top[1] if len(top) > 1 else None,
        entropy=-sum(math.exp(value) * value for value in top) if covered else None,
    )


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
