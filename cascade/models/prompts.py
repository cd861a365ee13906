"""From a request to a prompt, and from a free-text answer back to a label."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Final

from cascade.errors import ModelError
from cascade.models.base import Prompt
from cascade.models.prompted import Prompted
from cascade.records import Message

_FORMS: Final = ("NFC", "NFD", "NFKC", "NFKD")
MESSAGE_OVERHEAD = 256  # tokens that a template may put around a message, a tool or a call of one
# What chat models put around a label: quotes, Markdown, a full stop, white space.
_WRAPPING = " \t\r\n\"'`*_#.“”‘’«»"


def render(config: Prompted, text: str, labels: Sequence[str] | None) -> str:
    """Return the user message: the template with {labels} (one a line) and {text} filled in.

    {text} is filled in last, so braces in the request stay as they are.
    """
    template = config.prompt if config.prompt is not None else "{text}"
    return template.replace("{labels}", "\n".join(labels or ())).replace("{text}", text)


def conversation(config: Prompted, prompt: Prompt) -> tuple[Message, ...]:
    """Return the messages that a model reads: the graph's system message, then the conversation.

    The template is applied to the last user message. A request without `messages` is one user message.
    """
    messages = list(prompt.messages)
    if messages:
        last = max(index for index, message in enumerate(messages) if message.role == "user")
        messages[last] = messages[last].model_copy(
            update={"content": render(config, messages[last].content, None)}
        )
    else:
        messages = [Message(role="user", content=render(config, prompt.text, None))]
    system = [Message(role="system", content=config.system)] if config.system is not None else []
    return (*system, *messages)


def last_message(prompt: Prompt) -> str:
    """Return what is to be answered: the last message (perhaps a tool's result), or the text."""
    return prompt.messages[-1].content if prompt.messages else prompt.text


def most_prompt_tokens(
    config: Prompted, prompt: Prompt, labels: Sequence[str] | None, tool_factor: int = 1
) -> int:
    """Return an upper bound of the tokens that `prompt` has for a model, its chat template apart.

    A model with labels reads the text alone. Tools and the output schema count with their JSON, each name
    and message with `MESSAGE_OVERHEAD` more for what marks its place; a template may write the tools'
    JSON `tool_factor` times as long.
    """
    if labels is not None:
        return most_tokens(render(config, prompt.text, labels)) + most_tokens(config.system or "")
    parts: list[str] = []
    for message in conversation(config, prompt):
        parts += [message.content, message.tool_call_id or ""]
        parts += [part for call in message.tool_calls for part in (call.id, call.name, call.arguments)]
    parts += [json.dumps(prompt.output_schema)] if prompt.output_schema is not None else []
    marks = len(prompt.messages) + sum(len(message.tool_calls) for message in prompt.messages)
    tools = sum(most_tokens(json.dumps(tool.model_dump())) for tool in prompt.tools)
    return sum(map(most_tokens, parts)) + tool_factor * tools + MESSAGE_OVERHEAD * (marks + len(prompt.tools))


def match_label(answer: str, labels: Sequence[str]) -> str | None:
    """Return the label that `answer` is, without regard to case, quotes and Markdown; None if it is not one.

    An answer that fits several labels is taken only if it is exactly one of them.
    """
    if answer.strip() in labels:
        return answer.strip()
    bare = _bare(answer)
    matches = [label for label in labels if _bare(label) == bare]
    return matches[0] if len(matches) == 1 else None


def chosen_label(who: str, answer: str, labels: Sequence[str], billed: tuple[int, int] = (0, 0)) -> str:
    """Return the label that `answer` is.

    Raises:
        ModelError: it is not one of `labels`; `who` names the model, `billed` is what the answer used.
    """
    label = match_label(answer, labels)
    if label is None:
        shown = answer.strip()[:60]
        raise ModelError(
            f"{who} answered {shown!r}, which is not one of its {len(labels)} labels; "
            "say in its prompt to answer with one of {labels} only",
            billed,
            healthy=True,
        )
    return label


def most_tokens(text: str) -> int:
    """Return an upper bound of the tokens that `text` is cut into by any tokenizer in use.

    A byte-level BPE token covers at least one byte, and so does a SentencePiece token (unknown characters
    fall back to one token a byte), plus one for the space that it may put in front. Some tokenizers first
    bring the text into a Unicode normal form, which can be longer: the longest form counts.
    """
    if text.isascii():
        return 1 + len(text)
    forms = [text, *(unicodedata.normalize(form, text) for form in _FORMS)]
    return 1 + max(len(form.encode()) for form in forms)


def _bare(text: str) -> str:
    return text.strip(_WRAPPING).casefold()
