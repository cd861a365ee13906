"""A cascade as a LangChain chat model, or as a node of another LangGraph graph."""

from cascade.langchain._chat import AbstainedError, ChatCascade, ChatSettings, node_of

__all__ = ["AbstainedError", "ChatCascade", "ChatSettings", "node_of"]
