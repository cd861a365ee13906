"""What a chat template can do with a conversation; nothing of Jinja or llama.cpp is imported for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TemplateFeatures:
    """What a model's chat template takes. The defaults are those of an endpoint, which hides its template.

    Attributes:
        system: it has a place for a system message at the beginning.
        alternates: user and assistant must take turns, the user first.
        tools: it shows tools, their calls and their results.
        parts: it wants a message's content as a list of parts, `[{"type": "text", "text": …}]`.
        text_arguments: it wants the arguments of a call as JSON text instead of an object.
        empty_tools: it fails where `tools` is none, and takes an empty list.
    """

    system: bool = True
    alternates: bool = False
    tools: bool = True
    parts: bool = False
    text_arguments: bool = False
    empty_tools: bool = False
