"""A chat template: what it can do, and a conversation rendered through it. llama.cpp is not needed for it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from cascade.engine.features import TemplateFeatures
from cascade.engine.sandbox import sandbox
from cascade.errors import ModelError
from cascade.records import Message, Tool, ToolCall

# Bytes that a chat template may add: in all, for each message, and for each byte of the tools' JSON, which
# some templates indent. This bounds the price of a call before it is made.
TEMPLATE_BYTES = 4096
MESSAGE_BYTES = 256
TOOL_FACTOR = 4
_MARK = "\u2063cascade{}text\u2063"  # stands for a text from outside
MARKS = re.compile("\u2063cascade([0-9]+)text\u2063")
_NAME = re.compile(r"[\w.:/-]{1,128}", re.ASCII)


class ChatTemplate:
    """A GGUF file's chat template, compiled to run in a sandbox (`cascade.engine.sandbox`)."""

    def __init__(self, source: str, begin: str = "", end: str = "") -> None:
        """Compile `source`; `begin` and `end` are the texts of the file's bos and eos tokens.

        Raises:
            ModelError: it is not valid Jinja.
        """
        self._fixed = {"bos_token": begin, "eos_token": end, "add_generation_prompt": True}
        try:
            self._template = sandbox().from_string(source)
        except (TemplateError, RecursionError) as error:
            raise ModelError(f"its chat template is broken: {error}; download the file again") from error

    @cached_property
    def features(self) -> TemplateFeatures:
        """What the template can do, found out by rendering small conversations."""
        return _probe(self)

    def render(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None, max_bytes: int
    ) -> str:
        """Return the prompt for `messages`, up to the start of the answer.

        Raises:
            ModelError: the template fails, refuses the messages, or writes more than `max_bytes`.
        """
        parts, size = [], 0
        try:
            for part in self._template.generate(self._fixed, messages=list(messages), tools=tools):
                size += len(part.encode())
                if size > max_bytes:
                    break
                parts.append(part)
        except Exception as error:  # a template is foreign code: its failure is a failed call
            raise ModelError(
                f"its chat template refuses the messages: {error}; check 'system' and the roles"
            ) from error
        if size > max_bytes:
            raise ModelError(
                f"its chat template makes over {max_bytes} bytes of these messages; the template is broken"
            )
        return "".join(parts)

    def render_input(self, source: TemplateInput, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        """Return the prompt for a conversation in the form that `source` gives it.

        Raises:
            ModelError: as for `render`; or the template leaves out the tools.
        """
        shown, offered = source.messages(messages), [source.tool(tool) for tool in tools]
        tool_bytes = len(json.dumps(offered).encode()) if offered else 0
        overhead = TEMPLATE_BYTES + MESSAGE_BYTES * len(messages) + TOOL_FACTOR * tool_bytes
        max_bytes = overhead + len(json.dumps(shown, ensure_ascii=False).encode())
        none: list[dict[str, Any]] | None = [] if source.features.empty_tools else None
        rendered = self.render(shown, offered or none, max_bytes)
        if offered and rendered == self.render(shown, none, max_bytes):
            raise ModelError(
                "its chat template has no place for tools; use another model or ask without tools"
            )
        return rendered

    def problem(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        features: TemplateFeatures | None = None,
    ) -> str | None:
        """Return why the template cannot show all of a conversation and its tools; None if it can."""
        source = TemplateInput(self.features if features is None else features, marked=True)
        try:
            source.check_shown(self.render_input(source, messages, tools))
        except ModelError as error:
            return str(error)
        return None


def _probe(template: ChatTemplate) -> TemplateFeatures:
    """Find out what `template` can do; what nothing makes work is left as it is by default."""
    user = Message(role="user", content="Will it rain?")
    system = Message(role="system", content="Be brief.")
    answer = Message(role="assistant", content="Where?")
    call = ToolCall(id="abcdefghi", name="weather", arguments='{"town": "Ulm"}')
    town = {"type": "object", "properties": {"town": {"type": "string"}}}
    tool = Tool(name="weather", description="Tells the weather.", parameters=town)
    exchange = (
        user,
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="Sun.", tool_call_id=call.id),
    )

    def works(features: TemplateFeatures, *messages: Message, tools: Sequence[Tool] = ()) -> bool:
        return template.problem(messages, tools, features) is None

    features = TemplateFeatures()
    forms = [features, replace(features, empty_tools=True)]
    forms += [replace(form, parts=True) for form in forms]
    working = next((form for form in forms if works(form, user)), None)
    if working is None:
        return features
    features = working
    alternates = not (works(features, user, user) and works(features, answer, user))
    features = replace(features, system=works(features, system, user), alternates=alternates)
    forms = [features, replace(features, text_arguments=True)]
    native = next((form for form in forms if works(form, *exchange, tools=(tool,))), None)
    return native or replace(features, tools=False)


class TemplateInput:
    """Converts messages and tools to the form that templates read; if `marked`, with marks in place of texts.

    Attributes:
        features: what the template takes.
        texts: the text that each mark stands for.
    """

    def __init__(self, features: TemplateFeatures, *, marked: bool) -> None:
        self.features = features
        self._marked = marked
        self.texts: list[str] = []

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the messages; a tool's result includes the tool's name, which some templates show."""
        names = {call.id: call.name for message in messages for call in message.tool_calls}
        return [self._message(message, names) for message in messages]

    def tool(self, tool: Tool) -> dict[str, Any]:
        """Return the definition of a tool."""
        function = {
            "name": _plain(tool.name),
            "description": self._leaf(tool.description, _in_json(tool.description)),
            "parameters": self._descriptions(tool.parameters),
        }
        return {"type": "function", "function": function}

    def check_shown(self, rendered: str) -> None:
        """Raise ModelError if `rendered` leaves out a text."""
        folded = rendered.casefold()  # a template may change case
        for number, text in enumerate(self.texts):
            if _MARK.format(number).casefold() not in folded:
                raise ModelError(
                    f"its chat template leaves out {text[:40]!r}; use another model, or fewer roles and tools"
                )

    def _message(self, message: Message, names: dict[str, str]) -> dict[str, Any]:
        text = self._leaf(message.content)
        content: Any = [{"type": "text", "text": text}] if self.features.parts else text
        shown: dict[str, Any] = {"role": message.role, "content": content}
        if message.tool_calls:
            shown["tool_calls"] = [
                {
                    "id": _plain(call.id),
                    "type": "function",
                    "function": {"name": _plain(call.name), "arguments": self._arguments(call.arguments)},
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            shown["tool_call_id"] = _plain(message.tool_call_id)
            if message.tool_call_id in names:
                shown["name"] = names[message.tool_call_id]
        return shown

    def _leaf(self, text: str, written: str | None = None) -> str:
        """Return `text` or its mark; `written` is how the template will write it, if that differs."""
        if not self._marked or not text.strip():
            return text
        self.texts.append(text if written is None else written)
        return _MARK.format(len(self.texts) - 1)

    def _arguments(self, text: str) -> Any:
        """Return a call's arguments as the template expects them: as text, or as the object that it is."""
        if self.features.text_arguments:
            return self._leaf(text)
        try:
            arguments = json.loads(text)
        except (ValueError, RecursionError):
            arguments = None
        return self._strings(arguments) if isinstance(arguments, dict) else self._leaf(text)

    def _strings(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._leaf(value, _in_json(value))
        if isinstance(value, dict):
            return {key: self._strings(item) for key, item in value.items()}
        return [self._strings(item) for item in value] if isinstance(value, list) else value

    def _descriptions(self, schema: Any) -> Any:
        """Mark only the descriptions in a tool's parameters; templates read types and other keywords."""
        if isinstance(schema, dict):
            return {
                key: self._leaf(item, _in_json(item))
                if key == "description" and isinstance(item, str)
                else self._descriptions(item)
                for key, item in schema.items()
            }
        return [self._descriptions(item) for item in schema] if isinstance(schema, list) else schema


def _in_json(text: str) -> str:
    """Return `text` as written inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _plain(name: str) -> str:
    """Return the name or id of a tool call, which the template writes without a mark."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"tool name or call id {name[:80]!r} is not 1 to 128 letters, digits and _.:/-")
    return name
