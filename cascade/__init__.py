"""Small local experts first, larger models only when measured confidence is too low."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

# What imports LangChain or SQLAlchemy is loaded on first use.
_LAZY = {"AbstainedError": "cascade.langchain", "TraceStore": "cascade.trace"}


if not TYPE_CHECKING:  # a type checker reads the imports above instead

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
