"""What a chat-completions endpoint sends back, read strictly and folded into one answer.

The openai package builds its objects without checking them, so a wrong server would surface as an
`AttributeError` somewhere later. What an answer cannot do without (choices, text) is checked here and
raises `ValueError`; what it can do without (usage, log-probabilities) is dropped where it is malformed:
a missing signal is missing, never guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cascade.records import Token

# Servers round log-probabilities, so the sum over a complete distribution misses one by a little.
_ROUNDING = 1e-6


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Text(_Wire):
    content: str | None = None
    refusal: str | None = None


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
class Answer:
    """The fold of one completion, or of all pieces of a streamed one."""

    text: str = ""
    refusal: str = ""
    finish_reason: str | None = None
    model: str | None = None
    usage: tuple[int, int] | None = None
    tokens: list[Token] = field(default_factory=list)
    evidence_broken: bool = False

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
        new = (choice.message.content or "") + (choice.delta.content or "")
        self.text += new
        return new

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
