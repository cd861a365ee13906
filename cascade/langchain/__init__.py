"""LangChain messages and the chat model."""
