"""The chat template in a GGUF file, and whether it can work with the prompts of a graph."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.formats.gguf import TEMPLATE_KEY, read_metadata
from cascade.models.base import Prompt
from cascade.models.llamacpp.structured import structured_prompt
from cascade.models.prompted import Prompted
from cascade.models.prompts import single_message
from cascade.records import Message, Request, Tool, ToolCall

if TYPE_CHECKING:
    from cascade.engine.template import ChatTemplate

_TOWN = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
_TOOL = Tool(name="weather", description="Tells the weather of a town.", parameters=_TOWN)
_EXCHANGE = (
    Message(role="user", content="Will it rain in Lund?"),
    Message(
        role="assistant", tool_calls=(ToolCall(id="abcdefgh1", name="weather", arguments='{"town": "Lund"}'),)
    ),
    Message(role="tool", content="It will be sunny.", tool_call_id="abcdefgh1"),
    Message(role="assistant", content="No, it will be sunny."),
    Message(role="user", content="And tomorrow?"),
)


def chat_template(path: Path) -> ChatTemplate | None:
    """Return the chat template of the GGUF file `path`, if it has one.

    Raises:
        ConfigError: the file cannot be read or is not a GGUF file.
        ModelError: the template is not valid Jinja.
    """
    source = read_metadata(path, {TEMPLATE_KEY}).get(TEMPLATE_KEY)
    return _compiled(source) if isinstance(source, str) else None


@lru_cache(maxsize=32)
def _compiled(source: str) -> ChatTemplate:
    from cascade.engine.template import ChatTemplate

    return ChatTemplate(source)


def template_problems(
    template: ChatTemplate, config: Prompted, labels: tuple[str, ...] | None
) -> Iterator[str]:
    """Yield why a model with these settings cannot be asked through `template`.

    What is rendered: the graph's own prompt; and where answers are free (no `labels`), a conversation of
    several turns, with a tool, its call and its result.
    """
    single = single_message(config, "Will it rain?", labels, template.features)
    if (problem := template.problem(single)) is not None:
        yield f"a text cannot be asked: {problem}"
        return
    if labels is not None:
        return
    request = Request(text=_EXCHANGE[-1].content, messages=_EXCHANGE, tools=(_TOOL,))
    form = structured_prompt(config, Prompt(request), template)
    if (problem := template.problem(form.messages, form.tools)) is not None:
        yield f"a conversation with a tool cannot be continued: {problem}"
