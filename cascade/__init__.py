"""Small local experts first, larger models only when measured confidence is too low."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names
from cascade.errors import (
    CascadeError,
    ConfigError,
    ModelError,
    PrivacyError,
    RequestError,
    TraceError,
)
from cascade.observers import Observer
from cascade.records import Call, Decision, Message, Request, Result, Step, TextPiece, Tool, ToolCall
from cascade.run import Cascade

if TYPE_CHECKING:
    from cascade.langchain import AbstainedError
    from cascade.trace import TraceStore

__version__ = "0.1.0"

__all__ = [
    "AbstainedError",
    "Call",
    "Cascade",
    "CascadeError",
    "ConfigError",
    "Decision",
    "Message",
    "ModelError",
    "Observer",
    "PrivacyError",
    "Request",
    "RequestError",
    "Result",
    "Step",
    "TextPiece",
    "Tool",
    "ToolCall",
    "TraceError",
    "TraceStore",
    "__version__",
]

if not TYPE_CHECKING:  # a type checker reads the imports above instead
    # What imports LangChain or SQLAlchemy is loaded on first use.
    __getattr__ = lazy_names(__name__, {".langchain": "AbstainedError", ".trace": "TraceStore"})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
