"""From a request to a prompt, and from a free-text answer back to a label."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import string
import unicodedata
from collections.abc import Container, Sequence
from typing import Final

from cascade.engine.features import TemplateFeatures
from cascade.errors import ModelError
from cascade.formats.markdown import unfenced
from cascade.models.base import Prompt
from cascade.models.prompted import Prompted
from cascade.records import Message

_FORMS: Final = ("NFC", "NFD", "NFKC", "NFKD")
MESSAGE_OVERHEAD = 256  # tokens that a template may put around a message, a tool or a call of one
ENDPOINT = TemplateFeatures()  # an endpoint's own template is not known
MARKS_BYTES = 16  # about what a chat format puts around a message: OpenAI documents four tokens
# What chat models put around a label: quotes, Markdown, a full stop, white space.
_ID_LETTERS = string.ascii_letters + string.digits
_ID_LENGTH = 9
_ID = re.compile(f"[A-Za-z0-9]{{{_ID_LENGTH}}}")
_WRAPPING = " \t\r\n\"'`*_#.“”‘’«»"


def render(config: Prompted, text: str, labels: Sequence[str] | None) -> str:
    """Return the user message: the template with {labels} (one a line) and {text} filled in.

    {text} is filled in last, so braces in the request stay as they are.
    """
    template = config.prompt if config.prompt is not None else "{text}"
    return template.replace("{labels}", "\n".join(labels or ())).replace("{text}", text)


def conversation(
    config: Prompted, prompt: Prompt, features: TemplateFeatures = ENDPOINT
) -> tuple[Message, ...]:
    """Return the messages that a model reads: the graph's system message, then the conversation.

    The template is applied to the last user message. A request without `messages` is one user message.
    Roles and the ids of tool calls are such as every model with these `features` takes (`with_roles`,
    `with_own_ids`).
    """
    messages = list(prompt.messages)
    if messages:
        last = max(index for index, message in enumerate(messages) if message.role == "user")
        messages[last] = messages[last].model_copy(
            update={"content": render(config, messages[last].content, None)}
        )
    else:
        messages = [Message(role="user", content=render(config, prompt.text, None))]
    return with_own_ids(with_roles(with_system(config, messages), features))


def single_message(
    config: Prompted, text: str, labels: Sequence[str] | None, features: TemplateFeatures = ENDPOINT
) -> tuple[Message, ...]:
    """Return the messages that ask for one text alone: the user message, after a system message if any."""
    user = Message(role="user", content=render(config, text, labels))
    return with_roles(with_system(config, [user]), features)


def with_system(config: Prompted, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return `messages` after the graph's system message, if it has one."""
    first = (Message(role="system", content=config.system),) if config.system is not None else ()
    return (*first, *messages)


def with_roles(messages: Sequence[Message], features: TemplateFeatures) -> tuple[Message, ...]:
    """Return `messages` in roles that a model with these `features` takes; no text is lost.

    Leading system messages become one, and a later one stands at the beginning of the next user message
    (of the first system message, if no user message follows). Without a system role the system message
    stands at the beginning of the first message. Where roles must alternate, neighbours of the same role
    become one message, and a conversation that the assistant begins gets a user message before it.
    """
    system, said = _one_system(messages)
    if system and features.system:
        said.insert(0, Message(role="system", content=system))
    elif system and said[0].role == "user":
        said[0] = _after(system, said[0])
    elif system:
        said.insert(0, Message(role="user", content=system))
    return tuple(_alternating(said) if features.alternates else said)


def _one_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Return the text of the one system message, empty for none, and the messages without system messages."""
    leading: list[str] = []
    waiting: list[str] = []
    said: list[Message] = []
    for message in messages:
        if message.role == "system":
            (waiting if said else leading).append(message.content)
        elif message.role == "user" and waiting:
            said.append(_after(_joined(waiting), message))
            waiting = []
        else:
            said.append(message)
    return _joined([*leading, *waiting]), said


def _alternating(messages: Sequence[Message]) -> list[Message]:
    said: list[Message] = []
    for message in messages:
        if said and message.role in ("user", "assistant") and said[-1].role == message.role:
            calls = (*said[-1].tool_calls, *message.tool_calls)
            content = _joined([said[-1].content, message.content])
            said[-1] = message.model_copy(update={"content": content, "tool_calls": calls})
        else:
            said.append(message)
    start = 1 if said[0].role == "system" else 0
    if said[start].role != "user":
        said.insert(start, Message(role="user"))
    return said


def _after(text: str, message: Message) -> Message:
    return message.model_copy(update={"content": _joined([text, message.content])})


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(text for text in texts if text)


def with_own_ids(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return `messages` in which the id of each tool call is unique and has nine letters and digits.

    Some templates and servers (Mistral's) take no other ids, and some servers give one id to several calls.
    Ids of nine letters and digits stay. A result belongs to the latest call of its id.
    """
    taken = {call.id for message in messages for call in message.tool_calls if _ID.fullmatch(call.id)}
    used: set[str] = set()
    renamed: dict[str, str] = {}
    said = []
    for message in messages:
        calls = []
        for call in message.tool_calls:
            new = call.id
            if not _ID.fullmatch(new) or new in used:
                new = _fresh_id(call.id, taken | used)
            renamed[call.id] = new
            used.add(new)
            calls.append(call.model_copy(update={"id": new}))
        answers = message.tool_call_id
        changes: dict[str, object] = {"tool_calls": tuple(calls)} if calls else {}
        changes |= {"tool_call_id": renamed.get(answers, answers)} if answers is not None else {}
        said.append(message.model_copy(update=changes) if changes else message)
    return tuple(said)


def call_id(*parts: object) -> str:
    """Return an id of nine letters and digits for a tool call; the same for the same `parts`."""
    number = int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest())
    letters = []
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_ID_LETTERS))
        letters.append(_ID_LETTERS[digit])
    return "".join(letters)


def _fresh_id(given: str, taken: Container[str]) -> str:
    return next(new for number in itertools.count() if (new := call_id(given, number)) not in taken)


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


def prompt_bytes(config: Prompted, prompt: Prompt, labels: Sequence[str] | None) -> int:
    """Return about how many UTF-8 bytes of prompt a model reads, with the marks of a chat format."""
    if labels is not None:
        messages: tuple[Message, ...] = (Message(role="user", content=render(config, prompt.text, labels)),)
        parts = [messages[0].content, config.system or ""]
    else:
        messages = conversation(config, prompt)
        parts = [message.content for message in messages]
        parts += [
            text for each in messages for call in each.tool_calls for text in (call.name, call.arguments)
        ]
        parts += [json.dumps(tool.model_dump(), ensure_ascii=False) for tool in prompt.tools]
        parts += [json.dumps(prompt.output_schema)] if prompt.output_schema is not None else []
    return MARKS_BYTES * len(messages) + sum(len(part.encode("utf-8", "replace")) for part in parts)


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
    return unfenced(text).strip(_WRAPPING).casefold()
