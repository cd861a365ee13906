"""What a scripted model may answer apart from a text."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ScriptedCall(_Part):
    """A tool call of a scripted reply."""

    name: str | None = None
    """The tool's name; default: the one that `tool_choice` names, or else the first that is offered."""
    arguments: dict[str, Any] | str = Field(default_factory=dict)
    """The arguments, or the text that a broken model writes instead of their JSON."""


class ScriptedReply(_Part):
    """An answer that calls tools where the request allows it."""

    text: str = ""
    """The answer's text; alone where the request offers no tools."""
    calls: list[ScriptedCall] = Field(default_factory=list)
    """Tools to call, where the request offers any."""
