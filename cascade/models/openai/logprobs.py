"""Log-probabilities as endpoints send them."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from cascade.records import Token

# Servers round log-probabilities, so the sum over a complete distribution misses one by a little.
_ROUNDING = 1e-6
_Logprob = Annotated[float, Field(le=_ROUNDING, allow_inf_nan=False)]


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Top(_Wire):
    logprob: _Logprob


class _Piece(_Wire):
    token: str
    logprob: _Logprob
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None = None
    top_logprobs: list[_Top] | None = None


class _Logprobs(_Wire):
    content: list[_Piece] | None = None


_PIECES = TypeAdapter(_Logprobs | None)


def read_tokens(raw: Any) -> list[Token]:
    """Return the tokens of a choice's `logprobs`.

    Raises:
        ValidationError: they are malformed.
    """
    read = _PIECES.validate_python(raw or None)
    return [_token(piece) for piece in (read.content or [] if read else [])]


def _token(piece: _Piece) -> Token:
    """Return the token with its margin, and its entropy where the top list is the whole distribution."""
    top = sorted((min(0.0, entry.logprob) for entry in piece.top_logprobs or ()), reverse=True)
    covered = abs(sum(map(math.exp, top)) - 1.0) <= _ROUNDING
    return Token(
        text=_text(bytes(piece.bytes or b"")) or piece.token,
        logprob=min(0.0, piece.logprob),
        margin=top[0] - top[1] if len(top) > 1 else None,
        entropy=-sum(math.exp(value) * value for value in top) if covered else None,
    )


def _text(spelling: bytes) -> str:
    """Return the text; '' if it begins or ends within a character."""
    try:
        return spelling.decode()
    except UnicodeDecodeError:
        return ""
