"""A cascade as a LangChain chat model, or as a node of another LangGraph graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names

if TYPE_CHECKING:
    from cascade.langchain._chat import AbstainedError, ChatCascade, ChatSettings, node_of

__all__ = ["AbstainedError", "ChatCascade", "ChatSettings", "node_of"]

__getattr__ = lazy_names(__name__, {"._chat": "AbstainedError ChatCascade ChatSettings node_of"})
