"""Helper of the tests: what LangChain's standard tests want to know of a cascade as a chat model."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel

from cascade import Cascade
from cascade.langchain import ChatCascade


class CascadeUnderTest:
    """Mixed into their classes; a fixture of the subclass sets `cascade`."""

    cascade: Cascade

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatCascade

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"cascade": self.cascade}

    @property
    def supports_json_mode(self) -> bool:
        return True
