"""A chat completion, or the chunks of a streamed one, folded into one answer.

Absent, null, empty and in parts is the same for every optional member. A member of a wrong type fails the
answer; usage and log-probabilities, which it can do without, are dropped then: a missing signal is missing,
never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cascade.errors import first_problem
from cascade.formats.spelling import spelling
from cascade.models.openai.calls import Calls, Piece
from cascade.models.openai.logprobs import read_tokens
from cascade.models.openai.pieces import AmbiguousError, Once
from cascade.models.openai.usage import Usage
from cascade.models.openai.words import error_status, error_words, words
from cascade.models.prompts import call_id as new_call_id
from cascade.records import Token, ToolCall

# What servers call the ends that they report, in lower case: OpenAI's own three first.
FINISHES: Final = {
    "stop": "stop",
    "eos": "stop",  # together.ai, text-generation-inference
    "eos_token": "stop",  # text-generation-inference
    "stop_sequence": "stop",  # text-generation-inference, Anthropic
    "end_turn": "stop",  # Anthropic, behind gateways
    "complete": "stop",  # Cohere
    "length": "length",
    "max_tokens": "length",  # Anthropic, Cohere and Gemini, behind gateways
    "model_length": "length",  # Mistral: the context is full
    "model_context_window_exceeded": "length",  # Anthropic
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",  # Cohere
    "tool_use": "tool_calls",  # Anthropic
    "function_call": "tool_calls",  # OpenAI before tools
}
_EMPTY: Final[tuple[object, ...]] = (None, "", [], {})
_THINKING: Final = {"thinking", "reasoning", "redacted_thinking", "reasoning_content", "thought"}


class UnusableError(Exception):
    """What a server sent is no finished answer.

    Attributes:
        reason: the class of the failure, as in `ModelError`.
        healthy: the server works, and the request or what the model wrote is at fault.
        status: the HTTP status that an error named in a body of status 200.
    """

    def __init__(self, text: str, reason: str, *, healthy: bool = False, status: int | None = None) -> None:
        self.reason, self.healthy, self.status = reason, healthy, status
        super().__init__(text)


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, raw: Any) -> Any:
        """Drop every member that says nothing, and null from lists."""
        if not isinstance(raw, dict):
            return raw
        lists = {name: [item for item in value if item is not None]
                 for name, value in raw.items() if isinstance(value, list)}  # fmt: skip
        return {name: value for name, value in (raw | lists).items() if value not in _EMPTY}


class _Part(_Wire):
    type: str | None = None
    text: str | dict[str, Any] | None = None
    thinking: Any = None
    refusal: str | None = None


class _Function(_Wire):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None  # some servers send the object instead of its text


class _ToolCall(_Wire):
    index: int | None = None
    id: str | None = None
    function: _Function = _Function()

    def piece(self) -> Piece:
        arguments = self.function.arguments
        written = json.dumps(arguments) if isinstance(arguments, dict) else arguments or ""
        return Piece(self.index, self.id or "", self.function.name or "", written)


class _Message(_Wire):
    content: str | _Part | list[str | _Part] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] = []
    function_call: _Function | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None

    def text(self) -> str:
        """Return the parts of the content that are text."""
        parts = [part for part in self._parts() if part.type not in _THINKING]
        return "".join(part.text if isinstance(part.text, str) else _value(part.text) for part in parts)

    def said_refusal(self) -> str:
        """Return the refusal, which may be a part of the content."""
        return (self.refusal or "") + "".join(part.refusal or "" for part in self._parts())

    def thoughts(self) -> str:
        """Return the thinking; of several members that hold the same, the first."""
        parts = [part for part in self._parts() if part.type in _THINKING]
        thought = "".join(_plain(part.thinking) or _plain(part.text) for part in parts)
        members = (self.reasoning_content, self.reasoning, self.thinking)
        return thought or next(filter(None, map(_plain, members)), "")

    def _parts(self) -> list[_Part]:
        content = self.content if isinstance(self.content, list) else [self.content]
        return [_Part(text=part) if isinstance(part, str) else part for part in content if part is not None]


def _value(text: dict[str, Any] | None) -> str:
    """Return the text in `{"value": …}`, as OpenAI's assistants write it."""
    return _plain(text.get("value")) if text else ""


def _plain(said: Any) -> str:
    """Return the text in a thought of any shape; what holds none is ''."""
    if isinstance(said, str):
        return said.encode("utf-8", "replace").decode()
    if isinstance(said, list):
        return "".join(map(_plain, said))
    return _plain(said.get("text")) if isinstance(said, dict) else ""


class _Choice(_Wire):
    index: int | None = None
    message: _Message = _Message()
    delta: _Message = _Message()
    finish_reason: str | None = None
    error: Any = None
    logprobs: Any = None
    usage: Any = None


class _Completion(_Wire):
    choices: list[_Choice] = []
    model: str | None = None
    usage: Any = None
    x_groq: Any = None


class Answer:
    """One answer, put together from the documents of a response.

    Attributes:
        began: a choice has come, so that tokens were generated.
        model: the model that answered, as the server calls it.
        usage: the tokens that the server counted.
        evidence_broken: log-probabilities came that cannot be read.
    """

    def __init__(self) -> None:
        self.began = False
        self.model: str | None = None
        self.usage = Usage()
        self.evidence_broken = False
        self._text, self._refusal, self._thinking = Once(), Once(), Once()
        self._calls, self._message_calls = Calls(), Calls()
        self._tokens: list[Token] = []
        self._finishes: list[str] = []
        self._error = ""
        self._last: Any = None

    def add(self, document: Any) -> str:
        """Add a document and return the text that is new and certain.

        Raises:
            UnusableError: it is an error, or no chat completion.
        """
        if document is None:
            return ""
        if isinstance(document, dict) and (said := error_words(document)) is not None:
            self.usage.add(document.get("usage"))
            status = error_status(document)
            reason = "server_error" if status is None else f"http_{status}"
            raise UnusableError(f"reported an error in place of an answer: {said}", reason, status=status)
        if not isinstance(document, dict):
            raise UnusableError(f"sent no chat completion: {words(document)}", "invalid_answer")
        try:
            chunk = _Completion.model_validate(document)
        except ValidationError as error:
            key, message = first_problem(error)
            raise UnusableError(
                f"sent no chat completion ({key or 'body'}: {message})", "invalid_answer"
            ) from None
        self._last = document
        self.model = chunk.model or self.model
        self.usage.add(chunk.usage)
        if chunk.usage is None and isinstance(chunk.x_groq, dict):
            self.usage.add(chunk.x_groq.get("usage"))
        choice = next((choice for choice in chunk.choices if choice.index in (None, 0)), None)
        return "" if choice is None else self._choice(choice)

    def _choice(self, choice: _Choice) -> str:
        self.began = True
        self.usage.add(choice.usage)
        self._finishes += [choice.finish_reason] if choice.finish_reason else []
        self._error = words(choice.error) or self._error
        try:
            self._tokens += read_tokens(choice.logprobs)
        except ValidationError:
            self.evidence_broken = True
        delta, message = choice.delta, choice.message
        self._add_calls(self._calls, delta)
        self._add_calls(self._message_calls, message)
        self._refusal.add(delta.said_refusal(), message.said_refusal())
        self._thinking.add(delta.thoughts(), message.thoughts())
        return self._text.add(delta.text(), message.text())

    def _add_calls(self, calls: Calls, said: _Message) -> None:
        legacy = [_ToolCall(function=said.function_call)] if said.function_call is not None else []
        try:
            calls.add([call.piece() for call in said.tool_calls or legacy])
        except ValueError as error:
            raise UnusableError(f"sent {error}", "invalid_answer") from None

    def finish(self) -> str:
        """Return how the answer ended: stop, length or tool_calls.

        Raises:
            UnusableError: it did not end, or in another way.
        """
        for said in self._finishes:
            if said.lower() == "content_filter":
                raise UnusableError(
                    "withheld its answer (content_filter); ask something else", "content_filter", healthy=True
                )
            if said.lower() not in FINISHES:
                why = f": {self._error}" if self._error else ""
                raise UnusableError(f"did not finish its answer ({said:.60}){why}", "finish_reason")
        if self._error:
            raise UnusableError(f"did not finish its answer: {self._error}", "finish_reason")
        if not self._finishes:
            said = "" if self.began or self._last is None else f"; it sent {words(self._last)}"
            raise UnusableError(
                f"broke its answer off (no finish_reason); look at the server's log{said}", "broken_off"
            )
        return FINISHES[self._finishes[-1].lower()]

    @property
    def server_finish(self) -> str | None:
        """How the server calls the end of its answer."""
        return self._finishes[-1] if self._finishes else None

    def refusal(self) -> str:
        """Return in which words the model refused, or ''."""
        return self._read(self._refusal)

    def thinking(self) -> str:
        """Return what the model thought aloud, as far as the server tells; '' if it does not."""
        try:
            return self._thinking.text()
        except AmbiguousError:
            return self._thinking.deltas.readings()[0] if self._thinking.deltas.count else ""

    def text(self) -> str:
        """Return the text of the answer, without thinking.

        Raises:
            UnusableError: it can be read in two ways.
        """
        return self._read(self._text, lambda text: bool(spelling(self.evidence(), text)))

    def rest(self) -> str:
        """Return the end of the text that `add` has not returned, because it was not certain."""
        return self.text()[len(self._text.shown) :]

    def _read(self, said: Once, fits: Callable[[str], bool] | None = None) -> str:
        counted = self.usage.counted()
        try:
            return said.text(counted.generated if counted else None, fits)
        except AmbiguousError as error:
            raise UnusableError(f"sent a stream that is not clear: {error}", "invalid_answer") from None

    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Return the calls in order; missing and duplicate ids are replaced.

        Raises:
            UnusableError: they are not certain.
        """
        try:
            sides = [side.read() for side in (self._calls, self._message_calls) if side]
        except AmbiguousError as error:
            raise UnusableError(f"sent tool calls that are not clear: {error}", "invalid_answer") from None
        if len(sides) > 1 and [call[1:] for call in sides[0]] != [call[1:] for call in sides[1]]:
            raise UnusableError("sent tool calls in its message that its deltas contradict", "invalid_answer")
        calls_by_id: dict[str, ToolCall] = {}
        for position, (given, name, arguments) in enumerate(sides[0] if sides else ()):
            usable = given and given not in calls_by_id
            call_id = given if usable else new_call_id(position, name, arguments)
            calls_by_id[call_id] = ToolCall(id=call_id, name=name, arguments=arguments)
        return tuple(calls_by_id.values())

    def evidence(self) -> tuple[Token, ...]:
        """Return all tokens that were reported with their statistics; none if any of them is malformed."""
        return () if self.evidence_broken else tuple(self._tokens)
